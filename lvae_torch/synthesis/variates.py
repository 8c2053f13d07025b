"""Variates, which are channels of latent maps or units of latent vectors, and the choice of those to keep.

``div_stats`` measures the KL of each variate. ``[synthesis] keep_fraction`` keeps those with the largest KL and draws
the others from the prior (Efficient-VDVAE, Hazami et al. 2022, https://arxiv.org/abs/2203.13751).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lvae_torch.elbo.bounds import bits_per_dim
from lvae_torch.errors import DataError
from lvae_torch.files import atomic_write
from lvae_torch.models.contract import Latent, Shape, Source
from lvae_torch.models.sources import masked, posterior_sample
from lvae_torch.synthesis.parts import read_part
from lvae_torch.synthesis.session import Session


def variate_kl(latent: Latent) -> Tensor:
    """KL(q || p) of each variate, summed over space, nats, (B, Z)."""
    return latent.kl_of_units.flatten(1).unflatten(1, (latent.z.shape[1], -1)).sum(dim=2)


def bits_per_element(kl: Sequence[float], shapes: Sequence[Shape]) -> list[float]:
    """Convert the mean KL of each layer from nats to bits per element of its z."""
    return [bits_per_dim(layer, math.prod(shape)) for layer, shape in zip(kl, shapes, strict=True)]


@dataclass(frozen=True)
class Kept:
    """The variates to keep: a mask (Z,) for each layer, top first."""

    masks: tuple[np.ndarray, ...]

    @classmethod
    def largest(cls, bits: Sequence[np.ndarray], fraction: float) -> "Kept":
        """Keep the ``fraction`` of all variates with the largest ``bits``, (Z,) per layer: those above the quantile."""
        threshold = np.quantile(np.concatenate(bits), 1 - fraction)
        return cls(tuple(layer > threshold for layer in bits))

    @classmethod
    def of_channels(cls, channels: Sequence[Sequence[int]], shapes: Sequence[Shape]) -> "Kept":
        """Keep the variates with the indices ``channels``, by layer."""
        return cls(tuple(np.isin(np.arange(shape[0]), kept) for kept, shape in zip(channels, shapes, strict=True)))

    @property
    def everything(self) -> bool:
        """Whether all variates are kept."""
        return all(mask.all() for mask in self.masks)

    @property
    def channels(self) -> list[list[int]]:
        """Indices of the kept variates, by layer."""
        return [np.flatnonzero(mask).tolist() for mask in self.masks]

    def broadcastable(self, shapes: Sequence[Shape], device: torch.device) -> list[Tensor]:
        """Masks that broadcast to z: (Z, 1, 1), or (Z,) in fully-connected models."""
        return [
            torch.from_numpy(mask).to(device).view(-1, *[1] * (len(shape) - 1))
            for mask, shape in zip(self.masks, shapes, strict=True)
        ]

    def source(self, shapes: Sequence[Shape], device: torch.device) -> Source:
        """A source that draws kept variates from q and others from p."""
        return posterior_sample if self.everything else masked(self.broadcastable(shapes, device))


def statistics_path(session: Session) -> Path:
    """File in which ``div_stats`` stores its result."""
    return session.out.parent / "div_stats" / "div_stats.npz"


def write_statistics(session: Session, bits: Sequence[np.ndarray]) -> None:
    """Write ``bits.i``, (Z,): mean KL of each variate of layer i in bits per element; and ``belongs_to``, JSON."""
    arrays = {f"bits.{i}": layer for i, layer in enumerate(bits)}
    with atomic_write(statistics_path(session)) as file:
        np.savez(file, allow_pickle=False, belongs_to=np.array(json.dumps(session.identity)), **arrays)


def kept_variates(session: Session) -> Kept:
    """The variates that ``[synthesis] keep_fraction`` keeps by the statistics of ``div_stats``; all if it is None.

    Raises:
        DataError: if the statistics are missing or belong to another model.
    """
    fraction = session.options.keep_fraction
    if fraction is None:
        return Kept(tuple(np.ones(shape[0], dtype=bool) for shape in session.model.latent_shapes()))
    shapes, path = session.latent_shapes, statistics_path(session)
    if not path.is_file():
        raise DataError(
            f"[synthesis] keep_fraction = {fraction} needs the KL of each variate, but there is no {path}. "
            "Measure it first: --mode div_stats."
        )
    arrays = read_part(path)
    session.check_belongs(json.loads(str(arrays.get("belongs_to", "{}"))), path, "Run --mode div_stats again.")
    bits = [arrays.get(f"bits.{i}", np.empty(0)) for i in range(len(shapes))]
    if [len(layer) for layer in bits] != [shape[0] for shape in shapes]:
        raise DataError(f"{path}: not of latents {list(map(list, shapes))}. Run --mode div_stats again.")
    return Kept.largest(bits, fraction)
