"""A stand-in for a card that multiplies in TF32: operands of products and convolutions are rounded to 10 bits."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ROUNDED = ("mm", "addmm", "addmm_", "bmm", "convolution")


def in_tf32(x: Any) -> Any:
    """A float32 tensor, rounded to the nearest number of 10 bits; anything else as it is."""
    if not isinstance(x, Tensor) or x.dtype != torch.float32:
        return x
    return ((x.view(torch.int32) + 2**12) & ~(2**13 - 1)).view(torch.float32)


class Tf32(TorchDispatchMode):
    """Inside, float32 products are those of TF32 with sums in float32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ROUNDED:
            n_added = 1 if name.startswith("addmm") else 0  # what is added to the product is not rounded
            args = (*args[:n_added], *map(in_tf32, args[n_added : n_added + 2]), *args[n_added + 2 :])
        return func(*args, **(kwargs or {}))
