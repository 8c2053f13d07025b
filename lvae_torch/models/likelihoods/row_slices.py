"""Likelihoods of large images, read from the network's output a few rows at a time.

A mixture of logistics needs a dozen maps as large as its parameters while it computes; for an image of 1024x1024 they
would be the largest thing of a whole step. Pixels are independent given the parameters, so rows can take turns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from lvae_torch.models.contract import Likelihood

MakeLikelihood = Callable[[Tensor], Likelihood]  # (B, n_params, h, W) -> p(x | z) of these rows
LARGE = 2**25  # numbers in the parameters, from which on rows take turns
AT_ONCE = 2**21  # numbers in the parameters of the rows of one turn


def in_slices(make: MakeLikelihood, params: Tensor, large: int = LARGE, at_once: int = AT_ONCE) -> Likelihood:
    """``make(params)``, or where params, (B, n_params, H, W), are large, the same row by row."""
    if params.numel() <= large:
        return make(params)
    height = params.shape[2]
    # Without memory there is none to save: then one turn is for all.
    return Sliced(make, params, rows=height if params.is_meta else max(1, at_once * height // params.numel()))


@dataclass(frozen=True)
class Sliced:
    """A likelihood whose pixels are independent, ``rows`` rows at a time; values are those of the whole."""

    make: MakeLikelihood
    params: Tensor  # (B, n_params, H, W)
    rows: int

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats per image, (B,); x is (B, C, H, W) in [0, 1]."""
        params = self.params if torch.is_grad_enabled() else self.params.detach()
        log_prob: Tensor = _SlicedLogProb.apply(params, x, self.make, self.rows)
        return log_prob

    def mean(self) -> Tensor:
        return self._picture(lambda likelihood: likelihood.mean())

    def mode(self) -> Tensor:
        return self._picture(lambda likelihood: likelihood.mode())

    def sample(self, *, temperature: float = 1.0) -> Tensor:
        return self._picture(lambda likelihood: likelihood.sample(temperature=temperature))

    def _picture(self, of: Callable[[Likelihood], Tensor]) -> Tensor:
        return torch.cat([of(self.make(part)) for part in self.params.split(self.rows, dim=2)], dim=2)


class _SlicedLogProb(torch.autograd.Function):
    """Each turn takes its gradient at once, while its maps are there: one map is kept, and nothing computed twice."""

    @staticmethod
    def forward(ctx: Any, params: Tensor, x: Tensor, make: MakeLikelihood, rows: int) -> Tensor:
        gradient = torch.empty_like(params) if ctx.needs_input_grad[0] else None
        log_probs = []
        for first in range(0, params.shape[2], rows):
            turn = slice(first, first + rows)
            # A turn's maps are gone at its end: hooks that move or count what is kept have no business with them.
            with torch.set_grad_enabled(gradient is not None), saved_tensors_hooks(_as_it_is, _as_it_is):
                part = params[:, :, turn].detach().requires_grad_(gradient is not None)
                log_prob = make(part).log_prob(x[:, :, turn])
                if gradient is not None:
                    (gradient[:, :, turn],) = torch.autograd.grad(log_prob.sum(), part)
            log_probs.append(log_prob.detach())
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return torch.stack(log_probs).sum(dim=0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None, None, None]:
        """An image's parameters concern its own log probability only."""
        (gradient,) = ctx.saved_tensors
        return gradient * weights.to(gradient.dtype).view(-1, 1, 1, 1), None, None, None


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
