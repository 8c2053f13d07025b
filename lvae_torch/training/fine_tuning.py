"""Beginning with the weights of another run: all, or those that fit; and weights that stay as they are."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import Tensor

from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Model
from lvae_torch.runs.checkpoint import Weights

MOST_ROWS = 40
"""Of a table of weights that do not fit."""


def take_fitting(model: Model, weights: Weights) -> str:
    """Load what ``model`` has under the same name and in the same shape; the rest stays.

    Returns:
        A table: what was taken, and of the rest why not.
    Raises:
        CfgError: if nothing fits.
    """
    own = model.state_dict()
    fits = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    if not fits:
        raise CfgError("[train] initial_partial: none of its weights has the name and shape of one here; leave it out.")
    model.load_state_dict(fits, strict=False)
    rows = [(name, _shape(own.get(name)), _shape(weights.get(name))) for name in {**own, **weights} if name not in fits]
    taken = f"  taken: {len(fits)} of {len(own)} tensors, {_count(fits):,} of {_count(own):,} numbers"
    if not rows:
        return taken
    shown = [("not taken", "here", "there"), *rows[:MOST_ROWS]]
    widths = [max(len(row[i]) for row in shown) for i in range(2)]
    lines = [f"  {name:<{widths[0]}}  {here:<{widths[1]}}  {there}" for name, here, there in shown]
    more = [f"  and {len(rows) - MOST_ROWS} more"] if len(rows) > MOST_ROWS else []
    return "\n".join([taken, *lines, *more])


def freeze(model: Model, patterns: Sequence[str]) -> None:
    """Let the weights whose names match one of the patterns (``*``, ``?``, ``[...]``) stay as they are.

    Running statistics of batch norm go on: they are no weights.

    Raises:
        CfgError: naming a pattern without a match, or if nothing is left to train.
    """
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for pattern in patterns:
        matching = [name for name in trainable if fnmatchcase(name, pattern)]
        if not matching:
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in trainable))
            raise CfgError(f"[train] freeze: {pattern!r} matches no weight; their names begin with {parts}.")
        for name in matching:
            trainable[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in trainable.values()):
        raise CfgError("[train] freeze: nothing is left to train; take out a pattern.")


def _shape(tensor: Tensor | None) -> str:
    return "-" if tensor is None else "x".join(map(str, tensor.shape)) or "1"


def _count(weights: Weights) -> int:
    return sum(tensor.numel() for tensor in weights.values())
