"""Models whose one latent layer is of codes (VQ-VAE), and the trained priors that draw codes for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lvae_torch.data.images import Images
from lvae_torch.distributions.categorical import codes_of
from lvae_torch.distributions.codes import UniformCodes
from lvae_torch.errors import CfgError, DataError
from lvae_torch.models.contract import Latent, Model, Source
from lvae_torch.models.sources import given_latents, prior_mean, prior_sample

COLDEST = 1e-3  # stands for temperature 0, at which the likeliest code is certain

Grid = tuple[int, int, int]
"""Shape of an image in codes, (1, h, w)."""


@dataclass(frozen=True)
class CodeSource:
    """The images that ``[synthesis] codes_to`` asks for codes of, and where dumps lie."""

    dumps: Path
    splits: Mapping[str, Images]
    labels: Mapping[str, np.ndarray | None]
    """Class of each image of a split, where the dump has them."""


def code_grid(model: Model) -> tuple[Grid, int] | None:
    """Shape of an image in codes, and how many codes there are; None if the model has another kind of latents."""
    latents: tuple[Latent, ...] = model(None, prior_mean, n=1).latents if len(model.latent_shapes()) == 1 else ()
    if len(latents) != 1 or not isinstance(latents[0].prior, UniformCodes):
        return None
    channels, height, width = latents[0].z.shape[1:]
    return (channels, height, width), latents[0].prior.n_codes


@dataclass(frozen=True)
class CodePrior:
    """A model trained on codes, in place of the uniform prior."""

    model: Model
    n_codes: int
    identity: Mapping[str, Any]
    """Its run and step."""

    def source(self, n: int, temperature: float) -> Source:
        """Codes of ``n`` images."""
        likelihood = self.model(None, prior_sample(()), n=n).likelihood
        return given_latents([codes_of(likelihood.sample(temperature=max(temperature, COLDEST)), self.n_codes)])


def check_prior(model: Model, run: str, prior: str, image_shape: Grid, n_levels: int) -> None:
    """Refuse a prior run that models something else than the codes of this run's ``model``.

    Raises:
        CfgError: if the model has no codes.
        DataError: naming both runs.
    """
    grid = code_grid(model)
    if grid is None:
        raise CfgError(f"[synthesis] prior_run = {prior}: the latents of run {run} are no codes; leave it out.")
    if grid != (image_shape, n_levels):
        raise DataError(
            f"[synthesis] prior_run = {prior}: it draws {_told(image_shape, n_levels)}, but run {run} decodes "
            f"{_told(*grid)}. Train a prior on codes of {run}: --mode encoding with [synthesis] codes_to."
        )


def _told(grid: Grid, n_codes: int) -> str:
    return f"{'x'.join(map(str, grid))} of {n_codes} codes"
