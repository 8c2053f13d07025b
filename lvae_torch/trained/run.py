"""A trained run in Python.

run = lvae_torch.load_run("quickstart")        # a run's name or folder, or a bundle
x = run.images(limit=16)                       # (16, 3, 28, 28) in [0, 1]
z = run.encode(x)                              # one tensor per layer, top layer first
again, samples = run.decode(z), run.sample(16, temperature=0.8)
log_p = run.log_likelihood(x, samples=100)     # nats, (16,)
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lvae_torch.data.classes import with_labels
from lvae_torch.data.dump import Dump
from lvae_torch.data.images import Images
from lvae_torch.data.run_data import make_preprocess, open_dump
from lvae_torch.data.transforms import Preprocess
from lvae_torch.distributed.seeding import seed_everything, seed_of
from lvae_torch.distributions.codes import CertainCodes
from lvae_torch.distributions.gaussian import DiagonalGaussian
from lvae_torch.distributions.noise import image_streams
from lvae_torch.elbo.bounds import elbo_terms, iw_bound
from lvae_torch.errors import DataError
from lvae_torch.hparams import Settings
from lvae_torch.models.contract import Model, Output, Posterior, Shape, Source, of_classes
from lvae_torch.models.sources import given_latents, posterior_mean, posterior_sample, prior_sample
from lvae_torch.runs.checkpoint import TrainedOn
from lvae_torch.synthesis.section import Temperature
from lvae_torch.synthesis.temperatures import per_layer
from lvae_torch.trained.given import Given, Labels

Picture = Literal["mean", "mode", "sample"]
"""The picture of p(x | z): its mean, its mode, or a sample."""


@dataclass(frozen=True)
class Elbo:
    """The terms of the ELBO at one posterior sample of each image, in nats."""

    nll: Tensor  # (B,)    -log p(x | z)
    kl: Tensor  # (B, L)  KL(q || p) of each layer, top layer first

    @property
    def elbo(self) -> Tensor:
        """Lower bound on log p(x), (B,)."""
        return -self.nll - self.kl.sum(dim=1)


@dataclass(frozen=True)
class TrainedRun:
    """A trained model with its settings. Images are floats (B, C, H, W) in [0, 1], with any number B.

    A class-conditional model needs ``labels`` in each call: the class of each image, by number or name, or one for all.
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

    @property
    def name(self) -> str:
        return self.settings.run.name

    @property
    def latent_shapes(self) -> tuple[Shape, ...]:
        """Shape of each z without the batch dimension, top layer first."""
        return self.model.latent_shapes()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes 0, 1, ... that the model is conditional on; empty for an unconditional model."""
        return tuple(self.trained_on.classes)

    def images(self, split: str | None = None, limit: int = 0) -> Tensor:
        """Images of the run's dataset as the model sees them, (N, C, H, W).

        Args:
            split: a split of the dump; the run's validation split if not given.
            limit: number of images, spread evenly over the split; 0 for all.
        Raises:
            DataError: if the dump or the split is missing.
        """
        dump = open_dump(self.settings.data)
        chosen = dump.split(split or self.settings.data.val_split)
        images = Images(chosen, self.preprocess_of(dump), limit)
        return images.at(images.indices, self.device)

    def labels(self, split: str | None = None, limit: int = 0) -> Tensor:
        """Classes of the same images, int64 (N,), for a class-conditional model.

        Raises:
            DataError: if the dump or the split is missing, or the labels are not those of the model's classes.
            ValueError: if the model is not class-conditional.
        """
        if not self.classes:
            raise ValueError(f"{self.name} is not class-conditional.")
        dump = open_dump(self.settings.data)
        chosen = with_labels(dump.split(split or self.settings.data.val_split), dump, self.classes)
        images = Images(chosen, self.preprocess_of(dump), limit)
        labels = images.labels_at(images.indices, self.device)
        assert labels is not None, "a split that was opened with labels"
        return labels

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
    def encode(
        self, x: Tensor, draw: bool = False, seed: int | None = None, labels: Labels | None = None
    ) -> list[Tensor]:
        """Latents of images: posterior means, or samples with ``draw``; one (B, ...) per layer, top layer first."""
        passes = self._passes(x, posterior_sample if draw else posterior_mean, seed, labels)
        return _joined([[latent.z for latent in out.latents] for out in passes])

    @torch.no_grad()
    def posteriors(self, x: Tensor, labels: Labels | None = None) -> list[Posterior]:
        """q(z_i | z_above, x) of each layer, top layer first, with posterior means in the layers above."""
        passes = [out.latents for out in self._passes(x, posterior_mean, None, labels)]
        return [_joined_posterior([latents[i].encoded for latents in passes]) for i in range(len(passes[0]))]

    @torch.no_grad()
    def decode(
        self,
        latents: Sequence[Tensor],
        show: Picture = "mean",
        seed: int | None = None,
        labels: Labels | None = None,
    ) -> Tensor:
        """Decode latents, top layer first, as ``encode`` returns them, to images (B, C, H, W).

        Raises:
            ValueError: if shapes or number of the latents do not fit the model.
        """
        given = self._given.latents(latents)
        parts = zip(self._told(labels, len(given[0])), *(z.split(self._size) for z in given), strict=True)
        with self._noise(seed):
            passes = (self.model(None, of_classes(given_latents(z), told), len(z[0])) for told, *z in parts)
            return torch.cat([_shown(out, show) for out in passes])

    @torch.no_grad()
    def sample(
        self,
        n: int,
        temperature: Temperature = 1.0,
        show: Picture = "mean",
        seed: int | None = None,
        labels: Labels | None = None,
    ) -> Tensor:
        """Draw ``n`` images from the prior, (n, C, H, W).

        Args:
            temperature: factor on the prior's stds: a number, one for each layer (top first), or
                ``("linear", top, bottom)``.
            show: the mean of p(x | z), its mode, or a sample.
            seed: image k has a stream of its own, so that the first ones are the same whatever ``n`` is.
        """
        source = prior_sample(per_layer(temperature, len(self.latent_shapes)))
        firsts = range(0, n, self._size)
        sources = [of_classes(source, told) for told in self._told(labels, n)]
        if seed is None:
            counts = [min(self._size, n - first) for first in firsts]
            return torch.cat([_shown(self.model(None, *pair), show) for pair in zip(sources, counts, strict=True)])
        seeds = [[seed_of("sample", seed, k) for k in range(first, min(n, first + self._size))] for first in firsts]
        return torch.cat([self._drawn(*pair, show) for pair in zip(sources, seeds, strict=True)])

    def _drawn(self, source: Source, seeds: Sequence[int], show: Picture) -> Tensor:
        with image_streams(seeds, self.device):
            return _shown(self.model(None, source, len(seeds)), show)

    @torch.no_grad()
    def reconstruct(
        self,
        x: Tensor,
        draw: bool = True,
        show: Picture = "mean",
        seed: int | None = None,
        labels: Labels | None = None,
    ) -> Tensor:
        """Encode and decode images, (B, C, H, W), with posterior samples, or means if ``draw`` is False."""
        passes = self._passes(x, posterior_sample if draw else posterior_mean, seed, labels)
        return torch.cat([_shown(out, show) for out in passes])

    @torch.no_grad()
    def elbo(self, x: Tensor, seed: int | None = None, labels: Labels | None = None) -> Elbo:
        """The ELBO of each image, with its KL per layer, in nats."""
        parts = self._parts(self._given.on_levels(x), labels)
        with self._noise(seed):
            terms = [elbo_terms(p, self.model(p, of_classes(posterior_sample, told))) for p, told in parts]
        return Elbo(torch.cat([t.nll for t in terms]), torch.cat([t.kl for t in terms]))

    @torch.no_grad()
    def log_likelihood(
        self, x: Tensor, samples: int = 100, seed: int | None = None, labels: Labels | None = None
    ) -> Tensor:
        """Importance-weighted lower bound on log p(x) with ``samples`` samples, nats, (B,), float64."""
        chunk = self.settings.synthesis.chunk
        parts = self._parts(self._given.on_levels(x), labels)
        with self._noise(seed):
            return torch.cat([iw_bound(self.model, p, samples, chunk, labels=told) for p, told in parts])

    @property
    def _given(self) -> Given:
        return Given(self.name, self.model, self.trained_on.n_levels, self.classes, self.device)

    @property
    def _size(self) -> int:
        return self.settings.synthesis.batch_size

    def _passes(self, x: Tensor, source: Source, seed: int | None, labels: Labels | None) -> Iterator[Output]:
        parts = self._parts(self._given.images(x), labels)
        with self._noise(seed):
            for part, told in parts:
                yield self.model(part, of_classes(source, told))

    def _parts(self, x: Tensor, labels: Labels | None) -> list[tuple[Tensor, Tensor | None]]:
        """Images and their classes, (b,), as many as one pass takes."""
        return list(zip(x.split(self._size), self._told(labels, len(x)), strict=True))

    def _told(self, labels: Labels | None, n: int) -> Sequence[Tensor | None]:
        """The classes of ``n`` images, in the parts of the passes; None for each of an unconditional model."""
        told = self._given.labels(labels, n)
        return [None] * -(-n // self._size) if told is None else told.split(self._size)

    @contextmanager
    def _noise(self, seed: int | None) -> Iterator[None]:
        if seed is None:
            yield
            return
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            seed_everything("python", seed)
            yield


def _shown(out: Output, show: Picture) -> Tensor:
    match show:
        case "mean":
            return out.likelihood.mean()
        case "mode":
            return out.likelihood.mode()
        case "sample":
            return out.likelihood.sample()
    raise ValueError(f"show is {show!r}; use mean, mode or sample.")


def _joined(parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.cat(pieces) for pieces in zip(*parts, strict=True)]


def _joined_posterior(parts: Sequence[Posterior]) -> Posterior:
    match parts[0]:
        case CertainCodes(n_codes=n_codes):
            return CertainCodes(torch.cat([q.mean for q in parts]), n_codes)
    gaussians = [q for q in parts if isinstance(q, DiagonalGaussian)]
    return DiagonalGaussian(torch.cat([q.mean for q in gaussians]), torch.cat([q.log_std for q in gaussians]))
