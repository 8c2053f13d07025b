"""Which model made a file: what stands beside every result, and whether it is the model at hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lvae_torch.errors import DataError

OWNER = ("run", "step", "weights", "trained_on")  # keys of an identity that determine the model


def check_belongs(other: Mapping[str, Any], own: Mapping[str, Any], path: Path, remedy: str) -> None:
    """Check that the identity ``other`` of a file is that of this model.

    Raises:
        DataError: naming ``path``, both models and the ``remedy``, if not.
    """
    theirs, ours = ([str(identity.get(key, "?")) for key in OWNER] for identity in (other, own))
    if theirs != ours:
        raise DataError(f"{path}: made with {_told(theirs)}; this is {_told(ours)}. {remedy}")


def _told(owner: Sequence[str]) -> str:
    run, step, weights, trained_on = owner
    return f"run {run} at step {step} ({weights} weights, trained on {trained_on})"
