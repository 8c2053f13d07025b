"""Likelihoods of large images, computed a few rows at a time to save memory.

A mixture of logistics allocates a dozen maps as large as its parameters; for 1024x1024 images they would need more
memory than the rest of the step. Pixels are independent given the parameters, so the rows can be computed in turns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from lvae_torch.distributions.logistic_mixture import LogisticMixture
from lvae_torch.models.contract import Likelihood

MakeLikelihood = Callable[[Tensor], LogisticMixture]  # (B, n_params, h, W) -> p(x | z) of these rows
LARGE = 2**25  # parameters with more elements than this are computed in turns
AT_ONCE = 2**21  # elements of the parameters in one turn


def in_slices(make: MakeLikelihood, params: Tensor, large: int = LARGE, at_once: int = AT_ONCE) -> Likelihood:
    """``make(params)``; if params, (B, n_params, H, W), are large, the same likelihood in turns of a few rows."""
    if params.numel() <= large:
        return make(params)
    height = params.shape[2]
    # On the meta device there is no memory to save, so one turn computes all rows.
    return Sliced(make, params, rows=height if params.is_meta else max(1, at_once * height // params.numel()))


@dataclass(frozen=True)
class Sliced:
    """A likelihood with independent pixels, computed ``rows`` rows at a time; the values do not change."""

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
        """The draw that the whole likelihood would make: its noise is drawn at once, however many rows a turn has."""
        noise = self.make(self.params[:, :, :1]).noise(self.params.shape[2])
        turns = zip(self._turns(), *(u.split(self.rows, dim=1) for u in noise), strict=True)
        return torch.cat([part.sample((u_mix, u_colours), temperature) for part, u_mix, u_colours in turns], dim=2)

    def _picture(self, of: Callable[[LogisticMixture], Tensor]) -> Tensor:
        return torch.cat([of(part) for part in self._turns()], dim=2)

    def _turns(self) -> Iterator[LogisticMixture]:
        return map(self.make, self.params.split(self.rows, dim=2))


class _SlicedLogProb(torch.autograd.Function):
    """Each turn computes its gradient while its maps exist, so only one map is kept and nothing is recomputed."""

    @staticmethod
    def forward(ctx: Any, params: Tensor, x: Tensor, make: MakeLikelihood, rows: int) -> Tensor:
        gradient = torch.empty_like(params) if ctx.needs_input_grad[0] else None
        log_probs = []
        for first in range(0, params.shape[2], rows):
            turn = slice(first, first + rows)
            # Saved-tensor hooks (offloading, counting) must not see these temporaries.
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
        """Scale each image's gradient: its parameters affect only its own log probability."""
        (gradient,) = ctx.saved_tensors
        return gradient * weights.to(gradient.dtype).view(-1, 1, 1, 1), None, None, None


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
