"""Latents on a grid: integers k, which stand for z = centre + scale * step * k.

Where the prior is known before z, centre and scale are its mean and standard deviation, so it is one and the same
Gaussian on integers for every latent, and the posterior another on the same integers (HiLLoC, Townsend et al. 2020).
Where inference runs from the bottom up, or the prior is no Gaussian, the grid is of z itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lvae_torch.compression.rounding import Rounding
from lvae_torch.compression.stack import Coder, Symbols, gaussians, uniform
from lvae_torch.distributions import AutoregressiveFlow, DiagonalGaussian
from lvae_torch.distributions.codes import CertainCodes, UniformCodes
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Posterior, Prior, Source

SCALED_REACH = 16.0  # of grids scaled by the prior, in its standard deviations


@dataclass(frozen=True)
class Grid:
    """The grid of one layer."""

    exponent: int
    """The step is 2^-exponent."""
    reach: int
    """Integers are -reach .. reach."""
    is_scaled: bool
    """By the prior's mean and standard deviation; else z itself is on the grid."""

    @property
    def step(self) -> float:
        return float(2.0**-self.exponent)

    def z(self, k: np.ndarray, prior: Prior) -> Tensor:
        """What the integers stand for, in the shape of the prior's draws."""
        like = _like(prior)
        steps = torch.from_numpy(k).to(device=like.device, dtype=like.dtype).view(like.shape) * self.step
        return prior.at_noise(steps) if self.is_scaled else steps

    def gaussian(self, q: DiagonalGaussian, prior: Prior) -> Symbols:
        """``q`` on the integers."""
        mean, log_std = q.mean.double(), q.log_std.double()
        if self.is_scaled:
            assert isinstance(prior, DiagonalGaussian), type(prior)
            mean = (mean - prior.mean.double()) * torch.exp(-prior.log_std.double())
            log_std = log_std - prior.log_std.double()
        return gaussians((mean / self.step).cpu().numpy(), (log_std.exp() / self.step).cpu().numpy(), self.reach)

    def standard(self, n: int) -> Symbols:
        """The prior of ``n`` latents on a scaled grid."""
        return gaussians(np.zeros(n), np.full(n, 1 / self.step), self.reach)


Integers = list[np.ndarray | None]
"""Of each layer, top first, int32, flat; None where they are not known yet."""


def coded_posterior(grids: Sequence[Grid], coder: Coder, rounding: Rounding, integers: Integers) -> Source:
    """Codes z_i under q(z_i | ...), in the order in which the model asks for it; fills ``integers``.

    A model that infers from the bottom up asks again on its way down, and is given what it was given before.
    """
    given: dict[int, Tensor] = {}

    def source(i: int, prior: Prior, posterior: Posterior | None) -> Tensor:
        assert posterior is not None, i
        if i in given:
            return given[i]
        if isinstance(posterior, CertainCodes):
            integers[i], given[i] = posterior.codes.to(torch.int32).cpu().numpy().reshape(-1), posterior.codes
            return given[i]
        p = rounding(prior) if grids[i].is_scaled else prior
        q = rounding(DiagonalGaussian(posterior.mean, posterior.log_std))
        integers[i] = k = coder(grids[i].gaussian(q, p), integers[i])
        given[i] = grids[i].z(k, p)
        return given[i]

    return source


def coded_prior(grids: Sequence[Grid], coder: Coder, rounding: Rounding, integers: Integers) -> Source:
    """Codes z_i under p(z_i | z_above), top layer first; fills ``integers``."""

    def source(i: int, prior: Prior, posterior: Posterior | None) -> Tensor:
        grid = grids[i]
        match prior:
            case DiagonalGaussian():
                p = rounding(prior)
                symbols = grid.standard(p.mean.numel()) if grid.is_scaled else grid.gaussian(p, p)
                integers[i] = k = coder(symbols, integers[i])
                return grid.z(k, p)
            case UniformCodes():
                integers[i] = k = coder(uniform(prior.n_codes, prior.like.numel()), integers[i])
                return torch.from_numpy(k).to(prior.like.device).long().view(prior.like.shape)
            case AutoregressiveFlow():
                integers[i], z = _coded_flow(grid, prior, coder, rounding, integers[i])
                return z
        raise CfgError(f"layer {i}: its prior, {type(prior).__name__}, cannot be coded with.")

    return source


def _coded_flow(
    grid: Grid, prior: AutoregressiveFlow, coder: Coder, rounding: Rounding, known: np.ndarray | None
) -> tuple[np.ndarray, Tensor]:
    """Entry by entry, each given those before it; those after it are zero, whether they are known or not."""
    n, n_dims = prior.zeros.shape
    entries = None if known is None else known.reshape(n, n_dims)
    z = torch.zeros_like(prior.zeros)
    columns: list[np.ndarray] = []
    for j in range(n_dims):
        p = rounding(prior.entry(j, z))
        columns.append(coder(grid.gaussian(p, p), None if entries is None else np.ascontiguousarray(entries[:, j])))
        z[:, j] = grid.z(columns[-1], p)
    return np.stack(columns, axis=1).reshape(-1), z


def _like(prior: Prior) -> Tensor:
    """A tensor of the shape, the type and on the device of the prior's draws."""
    return prior.zeros if isinstance(prior, AutoregressiveFlow) else prior.mean
