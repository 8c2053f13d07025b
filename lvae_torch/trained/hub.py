"""Bundles on the Hugging Face hub: ``hf://user/name`` or ``hf://user/name@revision``."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvae_torch.distributed.handover import told_by_main
from lvae_torch.errors import CfgError, DataError, say
from lvae_torch.files import check_name, sha256_of
from lvae_torch.runs.bundle import CARD, SETTINGS, WEIGHTS, is_bundle

SCHEME = "hf://"
ADDRESS = re.compile(r"hf://(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]{1,200}))?")
FILES = [WEIGHTS, SETTINGS, CARD]


@dataclass(frozen=True)
class Address:
    """A place on the hub."""

    repo: str
    """user/name."""
    revision: str | None = None
    """A branch, tag or commit; None for the main branch."""

    @classmethod
    def of(cls, text: str) -> "Address":
        """
        Raises:
            CfgError: if the text is no such address.
        """
        match = ADDRESS.fullmatch(text)
        if match is None or ".." in text:
            raise CfgError(f"{text}: no address on the hub; write hf://user/name or hf://user/name@revision.")
        check_name(match["repo"].partition("/")[2], "the name on the hub")
        return cls(match["repo"], match["revision"])

    @property
    def name(self) -> str:
        """What a run of it is called."""
        return self.repo.partition("/")[2]

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def fetched(address: Address) -> Path:
    """The folder of a bundle in the hub's cache on this machine. Rank 0 asks the hub; the other ranks never do.

    The library's environment holds: ``HF_HOME`` for the cache, ``HF_HUB_OFFLINE=1`` to ask nobody, ``HF_TOKEN``.

    Raises:
        CfgError: if the library is missing.
        DataError: if it cannot be had, is damaged, or is no bundle of this program.
    """
    folder = Path(told_by_main(f"bundle {address}", lambda: str(_download(address))))
    if not folder.is_dir():
        raise DataError(f"{address}: rank 0 has it in {folder}, which is not here. Set HF_HOME to a shared folder.")
    return folder


def upload(folder: Path, address: Address) -> str:
    """Put a bundle on the hub, and make the repository if there is none; its address there.

    Raises:
        CfgError: if the library is missing.
        DataError: if the hub refuses, or cannot be reached.
    """
    hub = _library()
    try:
        hub.create_repo(address.repo, exist_ok=True)
        about = {"revision": address.revision, "commit_message": f"{address.name}: a bundle of lvae_torch"}
        return str(hub.upload_folder(repo_id=address.repo, folder_path=folder, allow_patterns=FILES, **about))
    except Exception as error:
        raise _refused(address, error) from error


def _download(address: Address) -> Path:
    hub = _library()
    try:
        found = hub.snapshot_download(address.repo, revision=address.revision, allow_patterns=FILES)
    except Exception as error:
        raise _refused(address, error) from error
    folder = Path(found)
    if not is_bundle(folder):
        raise DataError(f"{address}: no bundle of this program; it would have {', '.join(FILES)}.")
    for path in filter(Path.is_file, (folder / name for name in FILES)):
        blob = path.resolve()  # the cache names large files by their sha256
        if re.fullmatch("[0-9a-f]{64}", blob.name) and sha256_of(blob) != blob.name:
            raise DataError(f"{address}: {path.name} is damaged (another checksum). Remove {blob} and repeat.")
    say(f"{address}: revision {folder.name}, in {folder}")
    return folder


def _library() -> Any:
    try:
        import huggingface_hub
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise CfgError("hf:// needs the package huggingface-hub: pip install 'lvae_torch[hub]'.") from error
    if not sys.stderr.isatty():
        disable_progress_bars()
    return huggingface_hub


def _refused(address: Address, error: Exception) -> DataError:
    from huggingface_hub import errors

    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    match error:
        case errors.GatedRepoError() | errors.RepositoryNotFoundError():
            told = "there is no such repository, or it is closed to you; for the latter set HF_TOKEN"
        case errors.RevisionNotFoundError():
            told = "there is no such revision"
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            told = "it is not in the cache of this machine, and the hub cannot be reached"
        case _:
            told = "the hub refused it, or cannot be reached"
    return DataError(f"{address}: {told} ({type(error).__name__}: {first}).")
