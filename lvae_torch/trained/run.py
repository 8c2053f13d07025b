"""A trained run in Python.

run = lvae_torch.load_run("quickstart")        # a run's name or folder, or a bundle
x = run.images(limit=16)                       # (16, 3, 28, 28) in [0, 1]
z = run.encode(x)                              # one tensor per layer, top layer first
again, samples = run.decode(z), run.sample(16, temperature=0.8)
log_p = run.log_likelihood(x, samples=100)     # nats, (16,)
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from lvae_torch.distributed.seeding import seed_of
from lvae_torch.distributions.noise import image_streams
from lvae_torch.elbo.bounds import elbo_terms, iw_bound
from lvae_torch.models.contract import Output, Posterior, Source, of_classes
from lvae_torch.models.sources import (
    given_latents,
    given_noise,
    given_top,
    posterior_mean,
    posterior_sample,
    prior_sample,
)
from lvae_torch.synthesis.section import Temperature
from lvae_torch.trained.checking import check_count, check_floats, checked_temperatures
from lvae_torch.trained.labels import Labels
from lvae_torch.trained.opened import Opened
from lvae_torch.trained.outputs import Elbo, Picture, joined, joined_posterior, shown


class TrainedRun(Opened):
    """A trained model with its settings. Images are floats (B, C, H, W) in [0, 1], with any number B.

    A class-conditional model needs ``labels`` in each call: the class of each image, by number or name, or one for all;
    ``run.of_class(label)`` has one for all its calls.
    ``seed`` makes the draws of a call repeatable and does not change torch's generator; without a seed, draws come
    from that generator.
    """

    @torch.no_grad()
    def encode(
        self, x: Tensor, draw: bool = False, seed: int | None = None, labels: Labels | None = None
    ) -> list[Tensor]:
        """Latents of images: posterior means, or samples with ``draw``; one (B, ...) per layer, top layer first."""
        passes = self._passes(x, posterior_sample if draw else posterior_mean, seed, labels)
        return joined([[latent.z for latent in out.latents] for out in passes])

    @torch.no_grad()
    def posteriors(self, x: Tensor, labels: Labels | None = None) -> list[Posterior]:
        """q(z_i | z_above, x) of each layer, top layer first, with posterior means in the layers above."""
        passes = [out.latents for out in self._passes(x, posterior_mean, None, labels)]
        return [joined_posterior([latents[i].encoded for latents in passes]) for i in range(len(passes[0]))]

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
        given = self._checked_latents(latents)
        parts = zip(self._told(labels, len(given[0])), *(z.split(self._size) for z in given), strict=True)
        with self._noise(seed):
            passes = (self.model(None, of_classes(given_latents(z), told), len(z[0])) for told, *z in parts)
            return torch.cat([shown(out, show) for out in passes])

    @torch.no_grad()
    def sample(
        self,
        n: int,
        temperature: Temperature = 1.0,
        show: Picture = "mean",
        seed: int | None = None,
        given: Sequence[Tensor] = (),
        first: int = 0,
        labels: Labels | None = None,
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
        return torch.cat([shown(out, show) for out in self._generated(n, temperature, seed, given, first, labels)])

    @torch.no_grad()
    def draw(
        self,
        n: int,
        temperature: Temperature = 1.0,
        seed: int | None = None,
        given: Sequence[Tensor] = (),
        first: int = 0,
        labels: Labels | None = None,
    ) -> list[Tensor]:
        """The latents of ``sample`` with the same arguments, one (n, ...) per layer, top layer first."""
        passes = self._generated(n, temperature, seed, given, first, labels)
        return joined([[latent.z for latent in out.latents] for out in passes])

    def _generated(
        self,
        n: int,
        temperature: Temperature,
        seed: int | None,
        given: Sequence[Tensor],
        first: int,
        labels: Labels | None,
    ) -> Iterator[Output]:
        """Passes of at most ``_size`` images; what the caller draws of one comes from the images' own streams."""
        check_count(n, "n", 1)
        check_count(first, "first", 0)
        temperatures = checked_temperatures(temperature, len(self.latent_shapes))
        top = self._checked_latents(given, len(given)) if given is not None and len(given) else []
        if top and len(top[0]) not in (1, n):
            raise ValueError(f"{len(top[0])} latents of each layer are given for a sample of {n}; give 1 or {n}.")
        top = [z.expand(n, *z.shape[1:]) for z in top]
        for k, told in zip(range(0, n, self._size), self._told(labels, n), strict=True):
            count = min(self._size, n - k)
            seeds = [seed_of("sample", seed, first + j) for j in range(k, k + count)] if seed is not None else []
            with image_streams(seeds, self.device) if seeds else nullcontext():
                below = prior_sample(temperatures) if self.prior is None else self.prior.source(count, temperatures[0])
                source = given_top([z[k : k + count] for z in top], below)
                yield self.model(None, of_classes(source, told), count)

    @torch.no_grad()
    def noise(self, latents: Sequence[Tensor], labels: Labels | None = None) -> list[Tensor]:
        """The standard normal noise of which latents are the prior's draws, layer by layer; see ``at_noise``."""
        given = self._checked_latents(latents)
        out = self.model(None, self._of(given_latents(given), labels, len(given[0])), len(given[0]))
        return [latent.prior.noise_of(latent.z) for latent in out.latents]

    @torch.no_grad()
    def at_noise(self, noise: Sequence[Tensor], labels: Labels | None = None) -> list[Tensor]:
        """The prior's draws of standard normal noise: in each layer mean + std * noise, given the layers above."""
        given = self._checked_noise(noise)
        source = self._of(given_noise(given), labels, len(given[0]))
        return [latent.z for latent in self.model(None, source, len(given[0])).latents]

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
        return torch.cat([shown(out, show) for out in passes])

    @torch.no_grad()
    def elbo(self, x: Tensor, seed: int | None = None, labels: Labels | None = None) -> Elbo:
        """The ELBO of each image, with its KL per layer, in nats."""
        parts = self._parts(self._on_levels(x), labels)
        with self._noise(seed):
            terms = [elbo_terms(p, self.model(p, of_classes(posterior_sample, told))) for p, told in parts]
        return Elbo(torch.cat([t.nll for t in terms]), torch.cat([t.kl for t in terms]))

    @torch.no_grad()
    def kl_of_units(self, x: Tensor, seed: int | None = None, labels: Labels | None = None) -> list[Tensor]:
        """KL(q || p) of every unit at the samples of ``elbo``, nats, one (B, ...) per layer, top layer first."""
        passes = self._passes(x, posterior_sample, seed, labels)
        return joined([[latent.kl_of_units for latent in out.latents] for out in passes])

    def to_levels(self, x: Tensor) -> Tensor:
        """Images with every value at the nearest pixel level, as likelihoods need them, (B, C, H, W)."""
        check_floats(x)
        steps = self.trained_on.n_levels - 1
        return (x.clamp(0, 1) * steps).round() / steps if steps > 0 else x

    @torch.no_grad()
    def log_likelihood(
        self, x: Tensor, samples: int = 100, seed: int | None = None, labels: Labels | None = None
    ) -> Tensor:
        """Importance-weighted lower bound on log p(x) with ``samples`` samples, nats, (B,), float64."""
        check_count(samples, "samples", 1)
        chunk = self.settings.synthesis.chunk_or_batch
        parts = self._parts(self._on_levels(x), labels)
        with self._noise(seed):
            return torch.cat([iw_bound(self.model, p, samples, chunk, labels=told) for p, told in parts])

    def _passes(self, x: Tensor, source: Source, seed: int | None, labels: Labels | None) -> Iterator[Output]:
        parts = self._parts(self._checked(x), labels)
        with self._noise(seed):
            for part, told in parts:
                yield self.model(part, of_classes(source, told))
