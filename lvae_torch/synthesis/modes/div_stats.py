"""Divergence statistics: the mean KL of each variate over a split (by default the training split).

arrays = numpy.load("div_stats.npz")           # arrays["bits.0"]: top layer, mean bits per element, (Z,)
"""

import math
from collections.abc import Iterable

import numpy as np
import torch

from lvae_torch.elbo.bounds import bits_per_dim
from lvae_torch.models.contract import Shape
from lvae_torch.models.sources import posterior_sample
from lvae_torch.reporting.figures import draw_curves
from lvae_torch.synthesis.parts import Arrays, Parts
from lvae_torch.synthesis.session import Batch, Session
from lvae_torch.synthesis.variates import Kept, variate_kl, write_statistics

FRACTIONS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """Compute the mean KL of each variate, and the part of the total KL that the largest variates hold.

    An interrupted mode continues after its last whole part.
    """
    options, shapes = session.options, session.latent_shapes
    count = session.n_shards(options.shard_size)
    parts = session.parts(count, "shard_size", "batch_size")
    for j, batches in session.shards(options.shard_size):
        if not parts.is_done(j):
            parts.write(j, _sums(session, batches))
    session.processes.barrier()
    if not session.processes.is_main:
        return {}
    nats, n_images = _means(parts, count, len(shapes))
    bits = [bits_per_dim(layer, math.prod(shape[1:])) for layer, shape in zip(nats, shapes, strict=True)]
    write_statistics(session, bits)
    held = [_held(bits, nats, fraction) for fraction in FRACTIONS]
    _draw(session, nats, shapes)
    return {
        "n_images": n_images,
        "kl_per_layer": [float(layer.sum()) for layer in nats],
        "bits_per_element_per_layer": [float(layer.mean()) for layer in bits],
        "variates": [len(layer) for layer in bits],
        "kl_held": held,
        "statistics": "div_stats.npz",
    }


def _sums(session: Session, batches: Iterable[Batch]) -> Arrays:
    """Sums over images: nats of each variate, (Z,) per layer, and the number of images."""
    sums = [torch.zeros(shape[0], dtype=torch.float64) for shape in session.latent_shapes]
    n_images = 0
    for indices, x in batches:
        for total, latent in zip(sums, session.passed(x, indices, posterior_sample).latents, strict=True):
            total += variate_kl(latent).cpu().sum(dim=0, dtype=torch.float64)
        n_images += len(indices)
    return {"n_images": np.array(n_images), **{f"nats.{i}": total.numpy() for i, total in enumerate(sums)}}


def _means(parts: Parts, count: int, n_layers: int) -> tuple[list[np.ndarray], int]:
    """Nats per image of each variate, and the number of images; parts are added in a fixed order."""
    read = [parts.read(j) for j in range(count)]
    n_images = sum(int(part["n_images"]) for part in read)
    return [np.sum([part[f"nats.{i}"] for part in read], axis=0) / n_images for i in range(n_layers)], n_images


def _held(bits: list[np.ndarray], nats: list[np.ndarray], fraction: float) -> dict[str, object]:
    """The variates and the share of the KL that ``keep_fraction = fraction`` would keep."""
    kept = Kept.largest(bits, fraction)
    held = sum(float(layer[mask].sum()) for layer, mask in zip(nats, kept.masks, strict=True))
    return {
        "keep_fraction": fraction,
        "variates": sum(map(len, kept.channels)),
        "share_of_kl": held / max(sum(float(layer.sum()) for layer in nats), np.finfo(float).tiny),
    }


def _draw(session: Session, nats: list[np.ndarray], shapes: tuple[Shape, ...]) -> None:
    """Draw the cumulative share of the KL over variates, sorted by bits per element."""
    per_element = np.concatenate([layer / math.prod(shape[1:]) for layer, shape in zip(nats, shapes, strict=True)])
    held = np.cumsum(np.concatenate(nats)[np.argsort(-per_element, kind="stable")])
    x = np.arange(len(held) + 1) / len(held)
    y = np.concatenate([[0.0], held / max(held[-1], np.finfo(float).tiny)])
    curves = {"KL": (x, y), "were all alike": (np.array([0.0, 1.0]), np.array([0.0, 1.0]))}
    title = f"{session.identity['run']}: KL held by the most informative variates"
    draw_curves(session.out / "kl_held.png", curves, "share of variates", "share of KL", title)
