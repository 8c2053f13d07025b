"""A trained run in Python.

run = lvae_torch.load_run("quickstart")        # a run's name or folder, or a bundle
x = run.images(limit=16)                       # (16, 3, 28, 28) in [0, 1]
z = run.encode(x)                              # one tensor per layer, top layer first
again, samples = run.decode(z), run.sample(16, temperature=0.8)
log_p = run.log_likelihood(x, samples=100)     # nats, (16,)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.dump import Dump
from lvae_torch.data.images import Images
from lvae_torch.data.run_data import make_preprocess, open_dump
from lvae_torch.data.transforms import Preprocess
from lvae_torch.distributed.seeding import seed_everything, seed_of
from lvae_torch.distributions.noise import image_streams
from lvae_torch.elbo.bounds import elbo_terms, iw_bound
from lvae_torch.errors import DataError
from lvae_torch.hparams import Settings
from lvae_torch.models.contract import Model, Output, Posterior, Shape, Source
from lvae_torch.models.sources import (
    given_latents,
    given_noise,
    given_top,
    posterior_mean,
    posterior_sample,
    prior_sample,
)
from lvae_torch.runs.checkpoint import TrainedOn
from lvae_torch.synthesis.codes import CodePrior
from lvae_torch.synthesis.section import Temperature
from lvae_torch.synthesis.temperatures import per_layer
from lvae_torch.trained.checking import check_latents, check_levels, checked_images
from lvae_torch.trained.outputs import Elbo, Picture, joined, joined_posterior, shown
from lvae_torch.trained.pictures import Fit


@dataclass(frozen=True)
class TrainedRun:
    """A trained model with its settings. Images are floats (B, C, H, W) in [0, 1], with any number B.

    ``seed`` makes the draws of a call repeatable and does not change torch's generator; without a seed, draws come
    from that generator.
    """

    settings: Settings
    """The settings of the training."""
    model: Model
    """In evaluation mode, on ``device``."""
    step: int
    """Training steps that led to the weights."""
    is_averaged: bool
    """Whether the weights are the moving average."""
    trained_on: TrainedOn
    place: Path
    """The run's folder, or the bundle's."""
    device: torch.device
    prior: CodePrior | None = None
    """The trained prior over the codes of a VQ-VAE, of ``[synthesis] prior_run``; codes are uniform without it."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the programs that trained it, and the commit of ours, where they are known."""

    @property
    def name(self) -> str:
        return self.settings.run.name

    @property
    def identity(self) -> dict[str, Any]:
        """Which model this is, as it stands beside every result."""
        weights = "ema" if self.is_averaged else "raw"
        return {"run": self.name, "step": self.step, "weights": weights, "trained_on": self.trained_on.told}

    @property
    def latent_shapes(self) -> tuple[Shape, ...]:
        """Shape of each z without the batch dimension, top layer first."""
        return self.model.latent_shapes()

    def images(self, split: str | None = None, limit: int = 0, at: Sequence[int] | None = None) -> Tensor:
        """Images of the run's dataset as the model sees them, (N, C, H, W).

        Args:
            split: a split of the dump; the run's validation split if not given.
            limit: number of images, spread evenly over the split; 0 for all.
            at: the images with these numbers, from 0 on, instead.
        Raises:
            DataError: if the dump or the split is missing, or has no image of such a number.
        """
        dump = open_dump(self.settings.data)
        chosen = dump.split(split or self.settings.data.val_split)
        images = Images(chosen, self.preprocess_of(dump), limit)
        if at is None:
            return images.at(images.indices, self.device)
        if wrong := [k for k in at if not 0 <= k < len(chosen)]:
            raise DataError(f"{dump.folder}: {chosen.name} has images 0 to {len(chosen) - 1:,}, none {wrong[0]}.")
        return images.at(np.array(at, dtype=np.int64), self.device)

    def preprocess_of(self, dump: Dump) -> Preprocess:
        """The preprocessing of the run, for a dump.

        Raises:
            DataError: if shape or levels differ from the images that the run was trained on.
        """
        on = self.trained_on
        if dump.image_shape != on.image_shape:
            raise DataError(f"{dump.folder}: images {dump.image_shape}; the run was trained on {on.image_shape}.")
        preprocess = make_preprocess(self.settings.data, dump.n_levels)
        if preprocess.levels_after != on.n_levels:
            raise DataError(
                f"{dump.folder}: {preprocess.levels_after} levels after [data] binarize and n_bits, but the run was "
                f"trained on {on.n_levels}. Set them as they were."
            )
        return preprocess

    @torch.no_grad()
    def encode(self, x: Tensor, draw: bool = False, seed: int | None = None) -> list[Tensor]:
        """Latents of images: posterior means, or samples with ``draw``; one (B, ...) per layer, top layer first."""
        passes = self._passes(x, posterior_sample if draw else posterior_mean, seed)
        return joined([[latent.z for latent in out.latents] for out in passes])

    @torch.no_grad()
    def posteriors(self, x: Tensor) -> list[Posterior]:
        """q(z_i | z_above, x) of each layer, top layer first, with posterior means in the layers above."""
        passes = [out.latents for out in self._passes(x, posterior_mean, None)]
        return [joined_posterior([latents[i].encoded for latents in passes]) for i in range(len(passes[0]))]

    @torch.no_grad()
    def decode(self, latents: Sequence[Tensor], show: Picture = "mean", seed: int | None = None) -> Tensor:
        """Decode latents, top layer first, as ``encode`` returns them, to images (B, C, H, W).

        Raises:
            ValueError: if shapes or number of the latents do not fit the model.
        """
        parts = zip(*(z.split(self._size) for z in self._checked_latents(latents)), strict=True)
        with self._noise(seed):
            return torch.cat([shown(self.model(None, given_latents(part), len(part[0])), show) for part in parts])

    def picture(self, path: str | Path) -> Tensor:
        """A picture file as the model sees images, (1, C, H, W): cropped and scaled as the run's dump was.

        Raises:
            DataError: if it is no picture that can be read.
        """
        return self.fit.of_file(Path(path)).to(self.device)

    @cached_property
    def fit(self) -> Fit:
        """How pictures become images of the run."""
        return Fit.of(self.settings.data, self.trained_on.image_shape, self.trained_on.n_levels)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        temperature: Temperature = 1.0,
        show: Picture = "mean",
        seed: int | None = None,
        given: Sequence[Tensor] = (),
        first: int = 0,
    ) -> Tensor:
        """Draw ``n`` images from the prior, (n, C, H, W).

        Args:
            temperature: factor on the prior's stds: a number, one for each layer (top first), or
                ``("linear", top, bottom)``.
            show: the mean of p(x | z), its mode, or a sample.
            seed: image k has a stream of its own, so that the first ones are the same whatever ``n`` is.
            given: latents of the top layers, (1, ...) for all images or (n, ...); only the layers below are drawn,
                with the noise that they would have had.
            first: number of the first image: ``sample(1, seed=s, first=5)`` is the sixth of ``sample(64, seed=s)``.
        """
        return torch.cat([shown(out, show) for out in self._generated(n, temperature, seed, given, first)])

    @torch.no_grad()
    def draw(
        self,
        n: int,
        temperature: Temperature = 1.0,
        seed: int | None = None,
        given: Sequence[Tensor] = (),
        first: int = 0,
    ) -> list[Tensor]:
        """The latents of ``sample`` with the same arguments, one (n, ...) per layer, top layer first."""
        passes = self._generated(n, temperature, seed, given, first)
        return joined([[latent.z for latent in out.latents] for out in passes])

    def _generated(
        self, n: int, temperature: Temperature, seed: int | None, given: Sequence[Tensor], first: int
    ) -> Iterator[Output]:
        """Passes of at most ``_size`` images; what the caller draws of one comes from the images' own streams."""
        temperatures = per_layer(temperature, len(self.latent_shapes))
        top = [z.expand(n, *z.shape[1:]) for z in self._checked_latents(given, len(given))] if given else []
        for k in range(0, n, self._size):
            count = min(self._size, n - k)
            seeds = [seed_of("sample", seed, first + j) for j in range(k, k + count)] if seed is not None else []
            with image_streams(seeds, self.device) if seeds else nullcontext():
                below = prior_sample(temperatures) if self.prior is None else self.prior.source(count, temperatures[0])
                yield self.model(None, given_top([z[k : k + count] for z in top], below), count)

    @torch.no_grad()
    def noise(self, latents: Sequence[Tensor]) -> list[Tensor]:
        """The standard normal noise of which latents are the prior's draws, layer by layer; see ``at_noise``."""
        given = self._checked_latents(latents)
        out = self.model(None, given_latents(given), len(given[0]))
        return [latent.prior.noise_of(latent.z) for latent in out.latents]

    @torch.no_grad()
    def at_noise(self, noise: Sequence[Tensor]) -> list[Tensor]:
        """The prior's draws of standard normal noise: in each layer mean + std * noise, given the layers above."""
        given = self._checked_latents(noise)
        return [latent.z for latent in self.model(None, given_noise(given), len(given[0])).latents]

    @torch.no_grad()
    def reconstruct(self, x: Tensor, draw: bool = True, show: Picture = "mean", seed: int | None = None) -> Tensor:
        """Encode and decode images, (B, C, H, W), with posterior samples, or means if ``draw`` is False."""
        passes = self._passes(x, posterior_sample if draw else posterior_mean, seed)
        return torch.cat([shown(out, show) for out in passes])

    @torch.no_grad()
    def elbo(self, x: Tensor, seed: int | None = None) -> Elbo:
        """The ELBO of each image, with its KL per layer, in nats."""
        with self._noise(seed):
            terms = [elbo_terms(p, self.model(p, posterior_sample)) for p in self._on_levels(x).split(self._size)]
        return Elbo(torch.cat([t.nll for t in terms]), torch.cat([t.kl for t in terms]))

    @torch.no_grad()
    def kl_of_units(self, x: Tensor, seed: int | None = None) -> list[Tensor]:
        """KL(q || p) of every unit at the samples of ``elbo``, nats, one (B, ...) per layer, top layer first."""
        with self._noise(seed):
            passes = [self.model(p, posterior_sample).latents for p in self._checked(x).split(self._size)]
        return joined([[latent.kl_of_units for latent in latents] for latents in passes])

    def to_levels(self, x: Tensor) -> Tensor:
        """Images with every value at the nearest pixel level, as likelihoods need them, (B, C, H, W)."""
        steps = self.trained_on.n_levels - 1
        return (x.clamp(0, 1) * steps).round() / steps if steps > 0 else x

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, samples: int = 100, seed: int | None = None) -> Tensor:
        """Importance-weighted lower bound on log p(x) with ``samples`` samples, nats, (B,), float64."""
        chunk = self.settings.synthesis.chunk
        with self._noise(seed):
            return torch.cat([iw_bound(self.model, p, samples, chunk) for p in self._on_levels(x).split(self._size)])

    @property
    def _size(self) -> int:
        return self.settings.synthesis.batch_size

    def _passes(self, x: Tensor, source: Source, seed: int | None) -> Iterator[Output]:
        with self._noise(seed):
            for part in self._checked(x).split(self._size):
                yield self.model(part, source)

    @contextmanager
    def _noise(self, seed: int | None) -> Iterator[None]:
        if seed is None:
            yield
            return
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            seed_everything("python", seed)
            yield

    def _checked(self, x: Tensor) -> Tensor:
        n_levels = self.trained_on.n_levels
        return checked_images(x, self.name, self.model.image_shape, n_levels).to(self.device, torch.get_default_dtype())

    def _on_levels(self, x: Tensor) -> Tensor:
        """The same for likelihoods, which need values on the pixel levels."""
        x = self._checked(x)
        if self.model.in_bits:
            check_levels(x, self.name, self.trained_on.n_levels)
        return x

    def _checked_latents(self, latents: Sequence[Tensor], n_layers: int | None = None) -> list[Tensor]:
        """The latents of the top ``n_layers``, or of all, on the device."""
        check_latents(latents, self.name, self.latent_shapes, n_layers)
        return [z.to(self.device) for z in latents]
