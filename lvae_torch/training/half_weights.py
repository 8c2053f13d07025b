"""The kernels of a model in bfloat16, made of the flat weights in one pass a step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lvae_torch.models.contract import Model, Output, Source
from lvae_torch.models.sources import posterior_sample
from lvae_torch.training.flat import FlatParameters

HALVED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""Layers that autocast would run in half precision, after a conversion of each weight; other weights stay float32."""


class HalfWeights:
    """Calls a model with views of one bfloat16 copy of its flat weights.

    The gradients of all views are one vector, and come to the flat gradient in one conversion. Values and gradients are
    those of autocast alone, to the bit.
    """

    def __init__(self, model: Model, flat: FlatParameters) -> None:
        names = {id(p): name for name, p in model.named_parameters()}
        halved = {id(p) for m in model.modules() if isinstance(m, HALVED) for p in m.parameters(recurse=False)}
        self._flat = flat
        self._parts = [(names[id(p)] if id(p) in halved else "", p) for p in flat.parameters]

    def __call__(self, model: nn.Module, x: Tensor, source: Source = posterior_sample) -> Output:
        """A pass of ``model``, inside autocast, over images x, (B, C, H, W)."""
        pieces = self._flat.vector.to(torch.bfloat16).split([p.numel() for _, p in self._parts])
        views = {name: _laid_out(piece, p) for piece, (name, p) in zip(pieces, self._parts, strict=True) if name}
        out: Output = functional_call(model, views, (x, source))
        return out


def _laid_out(piece: Tensor, like: Tensor) -> Tensor:
    """A vector as a tensor with the shape and memory format of ``like``, in whose order its numbers are."""
    order = sorted(range(like.dim()), key=lambda d: -like.stride()[d])
    shape: Sequence[int] = [like.shape[d] for d in order]
    return piece.view(shape).permute([order.index(d) for d in range(like.dim())])
