"""Features of many images: computed by all ranks, kept in parts on disk, read by one process as one array."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from lvae_torch.errors import CfgError, NumericalError
from lvae_torch.files import make_folder
from lvae_torch.reporting.progress import Progress
from lvae_torch.synthesis.extractors import Extractor, check_finite
from lvae_torch.synthesis.parts import Parts
from lvae_torch.synthesis.session import Session

PER_PART = 1000  # images, about
VERSION = 1  # of the cache; raise it when pixels or parts change
Draw = Callable[[int, int], Tensor]
"""(first, count) -> x of these images, (count, C, H, W) in [0, 1]."""


@dataclass(frozen=True)
class Features:
    """Features (N, F) and logits (N, K) of images, float32, on disk."""

    features: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True)
class Collection:
    """``n`` images whose features lie in parts."""

    what: str
    n: int
    draw: Draw
    parts: Parts
    batch_size: int

    @property
    def per_part(self) -> int:
        return per_part(self.batch_size)

    @property
    def count(self) -> int:
        return -(-self.n // self.per_part)

    def compute(self, session: Session, extractor: Extractor) -> None:
        """Write the parts that are missing; each rank has its own. Afterwards all are there."""
        own = session.processes
        progress = Progress() if own.is_main else None
        for j in range(own.rank, self.count, own.world):
            if not self.parts.is_done(j):
                self._compute(j, extractor, progress, own.world)
        if progress is not None:
            progress.close()
        own.barrier()

    def _compute(self, j: int, extractor: Extractor, progress: Progress | None, world: int) -> None:
        found, were_finite, end = [], [], min(self.n, (j + 1) * self.per_part)
        for first in range(j * self.per_part, end, self.batch_size):
            x = self.draw(first, min(self.batch_size, end - first))
            found.append(extractor(as_pixels(x)))  # on the device: nothing waits until the part is whole
            were_finite.append(x.isfinite().all())
            if progress is not None:
                done = min(self.n, j * self.per_part + world * (first - j * self.per_part + len(x)))
                progress(f"features of {self.what}", done, self.n)
        if not torch.stack(were_finite).all():
            raise NumericalError(f"{self.what}: pixels are not finite; the model's numbers are broken.")
        features, logits = (torch.cat(values).cpu().numpy() for values in zip(*found, strict=True))
        check_finite(features, extractor.name)
        self.parts.write(j, {"features": features, "logits": logits})

    def read(self, folder: Path) -> Features:
        """All parts as arrays in files of ``folder``; memory holds a part at a time."""
        arrays: dict[str, np.ndarray] = {}
        for j in range(self.count):
            for name, values in self.parts.read(j).items():
                if name not in arrays:
                    path, shape = folder / f"{self.what}_{name}.npy", (self.n, *values.shape[1:])
                    arrays[name] = open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
                arrays[name][j * self.per_part : j * self.per_part + len(values)] = values
        return Features(**arrays)


def per_part(batch_size: int) -> int:
    """Images of a part: whole batches."""
    return max(1, PER_PART // batch_size) * batch_size


def as_pixels(x: Tensor) -> Tensor:
    """x (B, C, H, W) in [0, 1] -> uint8 (B, 3, H, W), to the nearest of 256 levels; grey images three times."""
    pixels = (x.float().nan_to_num(nan=0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1).contiguous()


def check_pictures(session: Session) -> None:
    """
    Raises:
        CfgError: if the model's images are no pictures in grey or colour.
    """
    channels, height, width = session.model.image_shape
    if channels not in (1, 3) or height * width == 1:
        raise CfgError(
            f"{session.identity['run']}: images {session.model.image_shape}; sample_quality needs pictures in grey or "
            "colour."
        )


def collection_of_split(session: Session, extractor: Extractor) -> Collection:
    """The reference: all images of the split, as the model sees them, with parts that any run finds again."""
    about = {key: session.identity[key] for key in ("dataset", "split", "content", "n_images", "preprocessing")}
    said = {**about, "extractor": extractor.sha256, "batch_size": session.options.batch_size, "version": VERSION}
    folder = _cache(session, f"{about['split']}_{_hash(said)[:16]}")
    parts = Parts(folder, _hash(said))

    def draw(first: int, count: int) -> Tensor:
        return session.x_at(session.images.indices[first : first + count], "reference")

    return Collection("reference", len(session.images.indices), draw, parts, session.options.batch_size)


def collection_in_run(
    session: Session, what: str, n: int, draw: Draw, extractor: Extractor, said: Mapping[str, object]
) -> Collection:
    """Images that the model makes; their parts belong to this run's results."""
    own = replace(session, out=session.out / what)
    said = {**said, "n": n, "extractor": extractor.sha256, "version": VERSION}
    size = session.options.batch_size
    return Collection(what, n, draw, own.parts(-(-n // per_part(size)), "batch_size", said=said), size)


def _cache(session: Session, name: str) -> Path:
    """Beside the dumps, where they can be written; else among this run's results."""
    folder = session.out
    if session.cache is not None:
        there = next(folder for folder in (session.cache, *session.cache.parents) if folder.exists())
        if os.access(there, os.W_OK):
            folder = session.cache
    make_folder(folder / name)
    return folder / name


def _hash(said: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
