"""A checksum in the first line of a cfg that the program wrote, which reveals damaged copies."""

import hashlib
import re

from lvae_torch.errors import CfgError

SEAL = re.compile(r"# sha256 of all below: ([0-9a-f]{64})\n")


def sealed(text: str) -> str:
    """``text`` below its checksum."""
    return f"# sha256 of all below: {_sha256(text)}\n{text}"


def check_seal(text: str, name: str) -> None:
    """Compare a cfg with its checksum, if it has one; messages show ``name`` in place of the file.

    Raises:
        CfgError: if they differ.
    """
    match = SEAL.match(text)
    if match and _sha256(text[match.end() :]) != match[1]:
        raise CfgError(
            f"{name}: damaged, or edited since the program wrote it (its first line is another text's sha256). Restore "
            "it; or remove it and repeat the training command, which writes it anew; or, if this is a cfg of your own "
            "now, delete its first line."
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
