"""Models whose only latent layer holds codes (VQ-VAE), and trained priors that draw codes for them."""

from collections.abc import Mapping, Sequence
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

COLDEST = 1e-3  # replaces temperature 0, which would divide by zero

Grid = tuple[int, int, int]
"""Shape (1, h, w) of the map of codes."""


@dataclass(frozen=True)
class CodeSource:
    """The images to encode for ``[synthesis] codes_to``, and the folder of dumps."""

    dumps: Path
    splits: Mapping[str, Images]
    labels: Mapping[str, np.ndarray | None]
    """Class of each image of a split; None if the dump has no classes."""


def code_grid(model: Model) -> tuple[Grid, int] | None:
    """Shape of the map of codes, and number of codes; None if the model has other latents."""
    if len(model.latent_shapes()) != 1:
        return None
    latents: tuple[Latent, ...] = model(None, model.of_any_class(prior_mean, 1), n=1).latents
    if not isinstance(latents[0].prior, UniformCodes):
        return None
    channels, height, width = latents[0].z.shape[1:]
    return (channels, height, width), latents[0].prior.n_codes


@dataclass(frozen=True)
class CodePrior:
    """A model trained on codes, which replaces the uniform prior."""

    model: Model
    n_codes: int
    identity: Mapping[str, Any]
    """Run and step of the prior."""

    def source(self, n: int, temperature: float) -> Source:
        """A source that gives codes drawn for ``n`` images; latents of the prior are drawn at ``temperature`` too."""
        latents = prior_sample([temperature] * len(self.model.latent_shapes()))
        likelihood = self.model(None, latents, n=n).likelihood
        return given_latents([codes_of(likelihood.sample(temperature=max(temperature, COLDEST)), self.n_codes)])


def check_prior(model: Model, run: str, prior: str, image_shape: Grid, n_levels: int, classes: Sequence[str]) -> None:
    """Check that a prior run models codes like those of this run's ``model``.

    Args:
        classes: those that the prior is conditional on.
    Raises:
        CfgError: if the model has no codes, or the prior needs classes.
        DataError: naming both runs, if their maps of codes differ.
    """
    grid = code_grid(model)
    if grid is None:
        raise CfgError(f"[synthesis] prior_run = {prior}: the latents of run {run} are no codes; leave it out.")
    if grid != (image_shape, n_levels):
        raise DataError(
            f"[synthesis] prior_run = {prior}: it draws {_told(image_shape, n_levels)}, but run {run} decodes "
            f"{_told(*grid)}. Train a prior on codes of {run}: --mode encoding with [synthesis] codes_to."
        )
    if classes:
        raise CfgError(
            f"[synthesis] prior_run = {prior}: it is class-conditional ({', '.join(classes[:3])}), and codes are drawn "
            "of no class. Train one without class_embedding."
        )


def _told(grid: Grid, n_codes: int) -> str:
    return f"{'x'.join(map(str, grid))} of {n_codes} codes"
