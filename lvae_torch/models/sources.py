"""Latent sources: how z_i is chosen. Each inference mode is the one top-down pass with another source.

A source is called once per layer, top-down, as ``source(i, prior, posterior)``; i = 0 is the top layer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lvae_torch.models.contract import Posterior, Prior, Source


def posterior_sample(i: int, prior: Prior, posterior: Posterior | None) -> Tensor:
    """z ~ q: training, evaluation, reconstruction."""
    return _given(posterior, i).rsample()


def posterior_mean(i: int, prior: Prior, posterior: Posterior | None) -> Tensor:
    """The mean of q: deterministic encodings."""
    return _given(posterior, i).mean


def prior_mean(i: int, prior: Prior, posterior: Posterior | None) -> Tensor:
    """The mean of p: what lower layers show when nothing is drawn."""
    return prior.mean


def prior_sample(temperatures: Sequence[float]) -> Source:
    """z ~ p, layer i at ``temperatures[i]`` (top first): generation."""
    return lambda i, prior, posterior: prior.rsample(temperatures[i])


def masked(keep: Sequence[Tensor]) -> Source:
    """q where ``keep[i]`` (broadcastable to z_i) is on, p elsewhere: pruned latents, masked reconstruction."""
    return lambda i, prior, posterior: torch.where(keep[i], _given(posterior, i).rsample(), prior.rsample())


def given_latents(latents: Sequence[Tensor]) -> Source:
    """The given values, top first: decoding."""
    return lambda i, prior, posterior: latents[i]


def filled(latents: Sequence[Tensor], keep: Sequence[Tensor], fill: Source) -> Source:
    """The given values where ``keep[i]`` (broadcastable to z_i) is on, ``fill`` elsewhere: pruned latents decoded."""
    return lambda i, prior, posterior: torch.where(keep[i], latents[i], fill(i, prior, posterior))


def given_noise(noise: Sequence[Tensor]) -> Source:
    """Standard normal ``noise[i]`` in place of a draw, through q if x was encoded, else through p."""
    return lambda i, prior, posterior: (prior if posterior is None else posterior).at_noise(noise[i])


def by_layer(sources: Sequence[Source]) -> Source:
    """Another source for each layer, top first: layer inspection, mixed passes."""
    return lambda i, prior, posterior: sources[i](i, prior, posterior)


def shared(source: Source) -> Source:
    """One draw for the whole batch: image 0's z, given to all."""
    return lambda i, prior, posterior: _first(source(i, prior, posterior))


def _first(z: Tensor) -> Tensor:
    return z[:1].expand_as(z)


def _given(posterior: Posterior | None, i: int) -> Posterior:
    if posterior is None:
        raise ValueError(
            f"layer {i}: a posterior is asked for, but the model was given no image; pass x, "
            "or use a source that needs only the prior."
        )
    return posterior
