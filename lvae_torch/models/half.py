"""Half precision for a model that is used, not trained."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch

from lvae_torch.models.contract import Model

T = TypeVar("T")


def use_bfloat16(model: Model) -> None:
    """Let ``model`` encode and decode in bfloat16; its weights, draws, KL and likelihood stay in float32."""
    device = next(model.parameters()).device.type
    model.encode = partial(_in_half, device, model.encode)  # type: ignore[method-assign]
    model.decode = partial(_in_half, device, model.decode)  # type: ignore[method-assign]


def _in_half(device: str, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    with torch.autocast(device, torch.bfloat16):
        return function(*arguments, **named)
