"""A trained run in Python.

run = lvae_torch.load_run("quickstart")        # a run's name or folder, or a bundle
x = run.images(limit=16)                       # (16, 3, 28, 28) in [0, 1]
z = run.encode(x)                              # one tensor per layer, top layer first
again, samples = run.decode(z), run.sample(16, temperature=0.8)
log_p = run.log_likelihood(x, samples=100)     # nats, (16,)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

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
from lvae_torch.models.contract import Model, Output, Posterior, Shape, Source
from lvae_torch.models.sources import given_latents, posterior_mean, posterior_sample, prior_sample
from lvae_torch.runs.checkpoint import TrainedOn
from lvae_torch.synthesis.section import Temperature
from lvae_torch.synthesis.temperatures import per_layer

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
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the programs that trained it, and the commit of ours, where they are known."""

    @property
    def name(self) -> str:
        return self.settings.run.name

    @property
    def latent_shapes(self) -> tuple[Shape, ...]:
        """Shape of each z without the batch dimension, top layer first."""
        return self.model.latent_shapes()

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
        return _joined([[latent.z for latent in out.latents] for out in passes])

    @torch.no_grad()
    def posteriors(self, x: Tensor) -> list[Posterior]:
        """q(z_i | z_above, x) of each layer, top layer first, with posterior means in the layers above."""
        passes = [out.latents for out in self._passes(x, posterior_mean, None)]
        return [_joined_posterior([latents[i].encoded for latents in passes]) for i in range(len(passes[0]))]

    @torch.no_grad()
    def decode(self, latents: Sequence[Tensor], show: Picture = "mean", seed: int | None = None) -> Tensor:
        """Decode latents, top layer first, as ``encode`` returns them, to images (B, C, H, W).

        Raises:
            ValueError: if shapes or number of the latents do not fit the model.
        """
        parts = zip(*(z.split(self._size) for z in self._checked_latents(latents)), strict=True)
        with self._noise(seed):
            return torch.cat([_shown(self.model(None, given_latents(part), len(part[0])), show) for part in parts])

    @torch.no_grad()
    def sample(self, n: int, temperature: Temperature = 1.0, show: Picture = "mean", seed: int | None = None) -> Tensor:
        """Draw ``n`` images from the prior, (n, C, H, W).

        Args:
            temperature: factor on the prior's stds: a number, one for each layer (top first), or
                ``("linear", top, bottom)``.
            show: the mean of p(x | z), its mode, or a sample.
            seed: image k has a stream of its own, so that the first ones are the same whatever ``n`` is.
        """
        source = prior_sample(per_layer(temperature, len(self.latent_shapes)))
        counts = [min(self._size, n - first) for first in range(0, n, self._size)]
        if seed is None:
            return torch.cat([_shown(self.model(None, source, count), show) for count in counts])
        seeds = [seed_of("sample", seed, k) for k in range(n)]
        return torch.cat([self._drawn(source, seeds[k : k + self._size], show) for k in range(0, n, self._size)])

    def _drawn(self, source: Source, seeds: Sequence[int], show: Picture) -> Tensor:
        with image_streams(seeds, self.device):
            return _shown(self.model(None, source, len(seeds)), show)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, draw: bool = True, show: Picture = "mean", seed: int | None = None) -> Tensor:
        """Encode and decode images, (B, C, H, W), with posterior samples, or means if ``draw`` is False."""
        passes = self._passes(x, posterior_sample if draw else posterior_mean, seed)
        return torch.cat([_shown(out, show) for out in passes])

    @torch.no_grad()
    def elbo(self, x: Tensor, seed: int | None = None) -> Elbo:
        """The ELBO of each image, with its KL per layer, in nats."""
        with self._noise(seed):
            terms = [elbo_terms(p, self.model(p, posterior_sample)) for p in self._on_levels(x).split(self._size)]
        return Elbo(torch.cat([t.nll for t in terms]), torch.cat([t.kl for t in terms]))

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
        """Check x and move it to the device.

        Raises:
            TypeError: if x is not a tensor of floats.
            ValueError: if x has another shape than the model's images, or values outside [0, 1].
        """
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"images are {kind}; give a torch tensor of floats in [0, 1], such as pixels / 255.")
        if x.ndim != 4 or not len(x) or tuple(x.shape[1:]) != self.model.image_shape:
            wanted = ", ".join(map(str, self.model.image_shape))
            raise ValueError(f"images have shape {tuple(x.shape)}; {self.name} needs (N, {wanted}) with N >= 1.")
        x = x.to(self.device, torch.get_default_dtype())
        if self.trained_on.n_levels and not ((x >= 0) & (x <= 1)).all():  # NaN is outside too
            raise ValueError(f"images have values from {x.min():g} to {x.max():g}; scale them to [0, 1].")
        return x

    def _on_levels(self, x: Tensor) -> Tensor:
        """The same for likelihoods, which need values on the pixel levels.

        Raises:
            ValueError: if x has values between the levels.
        """
        x, n_levels = self._checked(x), self.trained_on.n_levels
        if self.model.in_bits:
            steps = x * (n_levels - 1)
            if ((steps - steps.round()).abs() > 0.01).any():
                remedy = "binarize them, (x >= 0.5).float()" if n_levels == 2 else f"round them to k / {n_levels - 1}"
                raise ValueError(f"images have values between the {n_levels} pixel levels of {self.name}; {remedy}.")
        return x

    def _checked_latents(self, latents: Sequence[Tensor]) -> list[Tensor]:
        given = [tuple(z.shape[1:]) for z in latents]
        counts = {len(z) for z in latents}
        if not given or given != list(self.latent_shapes) or len(counts) != 1 or 0 in counts:
            wanted = ", ".join(f"(N, {', '.join(map(str, shape))})" for shape in self.latent_shapes) or "no latents"
            told = ", ".join(str(tuple(z.shape)) for z in latents) or "none"
            raise ValueError(f"{len(given)} latents of shapes {told}; {self.name} has {wanted}, top layer first.")
        return [z.to(self.device) for z in latents]


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
