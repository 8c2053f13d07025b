"""How fine each layer's grid must be, and how many bits a batch needs before it can be coded.

A step d instead of none moves z by up to d/2, on average by d^2/12 squared. Where the posterior N(m, s^2) is a good
one, -log p(x | z) is curved by about 1/s^2 - 1/s_p^2, s_p being the prior's standard deviation. So a latent costs
about d^2/24 (1/s^2 - 1/s_p^2) nats. What the finer grid needs more of bits comes back with the next images.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lvae_torch.compression.latents import SCALED_REACH, Grid
from lvae_torch.compression.pixels import check_coded, proper
from lvae_torch.distributions import DiagonalGaussian
from lvae_torch.distributions.codes import CertainCodes
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Model, Output, Posterior, Prior

LOSS = 1e-3  # of -ELBO, that all grids together may cost
EXPONENTS = range(-16, 15)  # the most integers a grid can have are 2^19
MARGIN = 2.0  # an unscaled grid reaches so many times as far as what is seen
MOST_REACH = 2**18
TAIL = 8.0  # standard deviations of each Gaussian that count as seen


@dataclass
class _Layers:
    """A source that draws z from q, and keeps the first prior and posterior that each layer is asked for with."""

    seen: dict[int, tuple[Prior, DiagonalGaussian]] = field(default_factory=dict)

    def __call__(self, i: int, prior: Prior, posterior: Posterior | None) -> Tensor:
        if posterior is None:
            raise CfgError("this model has no posterior.")
        z = posterior.rsample()
        if i not in self.seen and isinstance(posterior, DiagonalGaussian):
            self.seen[i] = prior, posterior
        return z


@dataclass(frozen=True)
class Calibration:
    """What one batch tells."""

    grids: tuple[Grid, ...]
    bits_back: float
    """That the posteriors of one image take from the stack, about."""


@torch.no_grad()
def calibrate(model: Model, x: Tensor) -> Calibration:
    """Grids for a model in evaluation mode, from one batch x, (B, C, H, W).

    Raises:
        CfgError: if the model has no probability of pixel levels, or something is not finite.
    """
    layers = _Layers()
    out = model(x, layers)
    check_coded(out.likelihood)
    nelbo = float(elbo_terms(x, Output(proper(out.likelihood), out.latents)).nelbo.mean())
    if not math.isfinite(nelbo):
        raise CfgError(f"-ELBO of the first images is {nelbo}; such a model cannot compress.")
    grids: list[Grid] = []
    bits_back = 0.0
    for i, latent in enumerate(out.latents):
        if isinstance(latent.posterior, CertainCodes):
            grids.append(Grid(0, 1, is_scaled=False))
            continue
        prior, q = layers.seen[i]
        # A prior that is the posterior stands for one that is not known yet, because z_above is not.
        is_scaled = isinstance(prior, DiagonalGaussian) and prior is not q
        grid = _grid(q, prior if is_scaled else None, latent.prior, LOSS * abs(nelbo) / len(out.latents))
        grids.append(grid)
        bits_back += _entropy(grid, q, prior)
    return Calibration(tuple(grids), bits_back)


def _grid(q: DiagonalGaussian, scale: Prior | None, prior: Prior, loss: float) -> Grid:
    """The coarsest whose loss is below ``loss`` nats per image."""
    precision = torch.exp(-2 * q.log_std.double())
    if isinstance(scale, DiagonalGaussian):
        unit = torch.exp(2 * scale.log_std.double())  # squared, of a grid with step 1
        curvature = (precision * unit - 1).clamp(min=0)
    else:
        curvature = precision
    at_one = float(curvature.flatten(1).sum(dim=1).mean()) / 24
    exponent = math.ceil(0.5 * math.log2(max(at_one, 1e-30) / loss))
    exponent = min(max(exponent, 0 if scale is not None else EXPONENTS.start), EXPONENTS.stop - 1)
    if scale is not None:
        return Grid(exponent, round(SCALED_REACH * 2**exponent), is_scaled=True)
    extents = [(g.mean.abs() + TAIL * g.log_std.exp()).max() for g in (q, prior) if isinstance(g, DiagonalGaussian)]
    needed = MARGIN * max(map(float, extents)) * 2.0**exponent
    return Grid(exponent, min(MOST_REACH, 2 ** math.ceil(math.log2(max(needed, 16.0)))), is_scaled=False)


def _entropy(grid: Grid, q: DiagonalGaussian, prior: Prior) -> float:
    """Bits per image that q takes on the grid, about."""
    log_std = q.log_std.double()
    if grid.is_scaled and isinstance(prior, DiagonalGaussian):
        log_std = log_std - prior.log_std.double()
    bits = (log_std / math.log(2) + grid.exponent + 0.5 * math.log2(2 * math.pi * math.e)).clamp(min=0)
    return float(bits.flatten(1).sum(dim=1).mean())
