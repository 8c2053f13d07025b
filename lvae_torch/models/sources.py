"""Latent sources choose z_i. Every inference mode is the same top-down pass with a different source.

The pass calls the source once per layer, top-down, as ``source(i, prior, posterior)``; i = 0 is the top layer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lvae_torch.models.contract import Posterior, Prior, Source


def posterior_sample(i: int, prior: Prior, posterior: Posterior | None) -> Tensor:
    """z ~ q, for training, evaluation and reconstruction."""
    return _given(posterior, i).rsample()


def posterior_mean(i: int, prior: Prior, posterior: Posterior | None) -> Tensor:
    """The mean of q, for deterministic encodings."""
    return _given(posterior, i).mean


def prior_mean(i: int, prior: Prior, posterior: Posterior | None) -> Tensor:
    """The mean of p, for lower layers that shall not vary."""
    return prior.mean


def prior_sample(temperatures: Sequence[float]) -> Source:
    """z ~ p, layer i at ``temperatures[i]`` (top first), for generation."""
    return lambda i, prior, posterior: prior.rsample(temperatures[i])


def masked(keep: Sequence[Tensor]) -> Source:
    """z ~ q where the mask ``keep[i]`` (broadcastable to z_i) is on, z ~ p elsewhere; for pruned latents."""
    return lambda i, prior, posterior: prior.filled(_given(posterior, i).rsample(), keep[i])


def given_latents(latents: Sequence[Tensor]) -> Source:
    """The given latents, top first, for decoding."""
    return lambda i, prior, posterior: latents[i]


def filled(latents: Sequence[Tensor], keep: Sequence[Tensor], temperatures: Sequence[float]) -> Source:
    """The given latents where the mask ``keep[i]`` (broadcastable to z_i) is on, z ~ p at ``temperatures[i]``
    elsewhere."""
    return lambda i, prior, posterior: prior.filled(latents[i], keep[i], temperatures[i])


def given_top(latents: Sequence[Tensor], below: Source) -> Source:
    """The given latents in the top layers, ``below`` under them; it is asked in each layer, so that its noise is the
    same however many are given."""

    def source(i: int, prior: Prior, posterior: Posterior | None) -> Tensor:
        z = below(i, prior, posterior)
        return latents[i].expand_as(z) if i < len(latents) else z

    return source


def between(left: Tensor, right: Tensor, weight: float) -> Tensor:
    """A point on the line from z to z; for codes, which cannot be mixed, the nearer end."""
    if left.is_floating_point():
        return torch.lerp(left, right, weight)
    return right if weight > 0.5 else left


def given_noise(noise: Sequence[Tensor]) -> Source:
    """Use the standard normal ``noise[i]`` in place of a draw: from q if x was encoded, else from p."""
    return lambda i, prior, posterior: (prior if posterior is None else posterior).at_noise(noise[i])


def by_layer(sources: Sequence[Source]) -> Source:
    """Use ``sources[i]`` in layer i, top first."""
    return lambda i, prior, posterior: sources[i](i, prior, posterior)


def shared(source: Source) -> Source:
    """One draw for all images, in however many passes: each gets the z of image 0 of the first pass."""
    first: dict[int, Tensor] = {}

    def drawn(i: int, prior: Prior, posterior: Posterior | None) -> Tensor:
        z = source(i, prior, posterior)
        return first.setdefault(i, z[:1]).expand_as(z)

    return drawn


def _given(posterior: Posterior | None, i: int) -> Posterior:
    if posterior is None:
        raise ValueError(
            f"layer {i}: a posterior is asked for, but the model was given no image; pass x, "
            "or use a source that needs only the prior."
        )
    return posterior
