"""The forms of ``[synthesis] temperature``."""

from typing import Any

from lvae_torch.errors import CfgError


def per_layer(temperature: Any, n_layers: int, key: str = "temperature") -> tuple[float, ...]:
    """One temperature per layer, top first, from a number, a list, or ('linear', top, bottom) including both ends.

    Raises:
        CfgError: if the length of a list is not the number of layers.
    """
    match tuple(temperature) if isinstance(temperature, list) else temperature:
        case int() | float():
            return (float(temperature),) * n_layers
        case ("linear", top, bottom):
            last = max(1, n_layers - 1)
            return tuple(top + (bottom - top) * i / last for i in range(n_layers))
        case tuple() as given if len(given) == n_layers:
            return given
    raise CfgError(
        f"[synthesis] {key} = {temperature!r} does not fit a model of {n_layers} layers; "
        f"give a number, a list of {n_layers}, or ('linear', top, bottom)."
    )
