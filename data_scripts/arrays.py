"""Datasets that come as arrays, to dumps: streamed a part at a time."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_scripts.progress import progress
from data_scripts.recipe import Request
from lvae_torch.data import write_dump
from lvae_torch.data.dump import Layout
from lvae_torch.errors import DataError

PART_BYTES = 8 * 2**20

Chunk = tuple[np.ndarray, np.ndarray | None]
"""Images (n, H, W, C), and their labels if there are any."""


@dataclass(frozen=True)
class Stream:
    """A split that is read once, front to back."""

    count: Callable[[], int]
    """Images in all."""
    chunks: Callable[[], Iterator[Chunk]]
    counts_quickly: bool = True
    """Otherwise the count is asked for only where a limit must be spread over all images."""


def of_array(images: np.ndarray, labels: np.ndarray | None = None, order: np.ndarray | None = None) -> Stream:
    """The images (n, H, W, C) that ``order`` names, or all; ``images`` may be mapped from disk.

    Raises:
        DataError: if there is not one label for each image.
    """
    if labels is not None and labels.shape != images.shape[:1]:
        raise DataError(f"labels {labels.shape} for {len(images):,} images: not files of one set.")
    chosen = np.arange(len(images)) if order is None else order

    def chunks() -> Iterator[Chunk]:
        for part in parts(chosen, images[:1].nbytes):
            yield images[part], None if labels is None else labels[part]

    return Stream(lambda: len(chosen), chunks)


def parts(indices: np.ndarray, item_bytes: int) -> list[np.ndarray]:
    """``indices`` in pieces whose items take about ``PART_BYTES``."""
    size = max(1, PART_BYTES // max(1, item_bytes))
    return [indices[first : first + size] for first in range(0, len(indices), size)]


def write_arrays(
    request: Request, variant: str, layout: Layout, provenance: Mapping[str, Any], splits: Mapping[str, Stream]
) -> str:
    """Write the dump ``variant``, all images or ``--limit`` of each split; returns its name."""
    name, said = request.named(variant, provenance)
    chunks = {split: _shown(stream, f"{name} {split}", request) for split, stream in splits.items()}
    return write_dump(name, chunks, request.dumps, layout, said, replace=request.options["replace"]).dataset


def _shown(stream: Stream, name: str, request: Request) -> Iterator[Chunk]:
    """The images wanted of a split, with how far it has come."""
    known = stream.counts_quickly or request.options["limit"]
    wanted = request.chosen(stream.count()) if known else None
    with progress(name, None if wanted is None else len(wanted), "images") as advance:
        for images, labels in _only(stream.chunks(), wanted):
            yield images, labels
            advance(len(images))


def _only(chunks: Iterator[Chunk], wanted: np.ndarray | None) -> Iterator[Chunk]:
    """What ``wanted`` names, in ascending order; everything for None."""
    if wanted is None:
        yield from chunks
        return
    first = 0
    for images, labels in chunks:
        begin, end = np.searchsorted(wanted, (first, first + len(images)))
        here = wanted[begin:end] - first
        first += len(images)
        if len(here) == len(images):
            yield images, labels
        elif len(here):
            yield images[here], None if labels is None else labels[here]


def padded(images: np.ndarray, side: int) -> np.ndarray:
    """Images (n, H, W, C) with zeros around them, up to ``side`` pixels; the same on all sides."""
    border = (side - images.shape[1]) // 2
    return np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)))


def permutation(n: int, seed: int) -> np.ndarray:
    """The order that scikit-learn's ``shuffle`` and NumPy's old generator give for this seed."""
    return np.random.RandomState(seed).permutation(n)
