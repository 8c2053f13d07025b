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

    Gradients come on the views; ``GradientSlices`` brings them to the flat gradient, a slice in one conversion. Values
    and gradients are those of autocast alone, to the bit.
    """

    def __init__(self, model: Model, flat: FlatParameters) -> None:
        halved = {id(p) for m in model.modules() if isinstance(m, HALVED) for p in m.parameters(recurse=False)}
        self._flat = flat
        self._vector = torch.empty_like(flat.vector.data, dtype=torch.bfloat16)
        pieces = self._vector.split([p.numel() for p in flat.parameters])
        self.copies = {
            id(p): _laid_out(piece, p).requires_grad_()
            for piece, p in zip(pieces, flat.parameters, strict=True)
            if id(p) in halved
        }
        """What the model uses in place of some of its parameters, by ``id`` of these."""
        self._by_name = {name: self.copies[id(p)] for name, p in model.named_parameters() if id(p) in self.copies}

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the copy anew, after the weights have changed."""
        self._vector.copy_(self._flat.vector)

    def __call__(self, model: nn.Module, x: Tensor, source: Source = posterior_sample, samples: int = 1) -> Output:
        """A pass of ``model``, inside autocast, over images x, (B, C, H, W), with so many draws of each."""
        out: Output = functional_call(model, self._by_name, (x, source), {"samples": samples})
        return out

    @property
    def n_bytes(self) -> int:
        """Of the copy."""
        return self._vector.nbytes

    def forget_gradients(self) -> None:
        """Free the gradients of a pass that trains nothing."""
        for copy in self.copies.values():
            copy.grad = None


def _laid_out(piece: Tensor, like: Tensor) -> Tensor:
    """A vector as a tensor with the shape and memory format of ``like``, in whose order its numbers are."""
    order = sorted(range(like.dim()), key=lambda d: -like.stride()[d])
    shape: Sequence[int] = [like.shape[d] for d in order]
    return piece.view(shape).permute([order.index(d) for d in range(like.dim())])
