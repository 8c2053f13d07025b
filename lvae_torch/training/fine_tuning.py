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

    Of a model of another depth, the layers nearest to the image are the same ones, wherever lists of layers begin.

    Returns:
        A table: what was taken, and of the rest why not.
    Raises:
        CfgError: if nothing fits.
    """
    own = model.state_dict()
    weights, moved = _from_below(model, own, weights)
    fits = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    if not fits:
        raise CfgError("[train] initial_partial: none of its weights has the name and shape of one here; leave it out.")
    model.load_state_dict(fits, strict=False)
    rows = [(name, _shape(own.get(name)), _shape(weights.get(name))) for name in {**own, **weights} if name not in fits]
    taken = f"  taken: {len(fits)} of {len(own)} tensors, {_count(fits):,} of {_count(own):,} numbers"
    taken = "\n".join([taken, *moved])
    if not rows:
        return taken
    shown = [("not taken", "here", "there"), *rows[:MOST_ROWS]]
    widths = [max(len(row[i]) for row in shown) for i in range(2)]
    lines = [f"  {name:<{widths[0]}}  {here:<{widths[1]}}  {there}" for name, here, there in shown]
    more = [f"  and {len(rows) - MOST_ROWS} more"] if len(rows) > MOST_ROWS else []
    return "\n".join([taken, *lines, *more])


def _from_below(model: Model, own: Weights, weights: Weights) -> tuple[Weights, list[str]]:
    """The weights under the names that layers have in ``model``, counted from the bottom; and what was renamed."""
    told = []
    for name in model.top_first:
        here, there = _length(own, name), _length(weights, name)
        if there and (shift := here - there):
            weights = {_moved(key, name, shift): value for key, value in weights.items()}
            told.append(
                f"  layers are matched from the bottom: {name}.{max(0, -shift)} there is {name}.{max(0, shift)} here"
            )
    return weights, told


def _length(weights: Weights, name: str) -> int:
    """Entries of the list of modules ``name``."""
    indices = {key.split(".")[1] for key in weights if key.startswith(f"{name}.")}
    return len(indices) if all(map(str.isdecimal, indices)) else 0


def _moved(key: str, name: str, shift: int) -> str:
    first, _, rest = key.partition(".")
    index, _, inside = rest.partition(".")
    return f"{name}.{int(index) + shift}.{inside}" if first == name else key


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
