"""Arrays of yours to a dump, in one call."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lvae_torch.data.dump import Dump, Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import DataError
from lvae_torch.files import place_of

Array = np.ndarray | Tensor
Chunk = Array | tuple[Array, Array | None]
"""Images (n, H, W) or (n, H, W, C), alone or with their labels, integers (n,) or (n, k)."""


def write_dump(
    name: str,
    splits: Mapping[str, Chunk | Iterable[Chunk]],
    dumps: Path | str = "dataset_dumps",
    layout: Layout | None = None,
    provenance: Mapping[str, Any] | None = None,
    label_names: Iterable[str] = (),
    replace: bool = False,
) -> Dump:
    """Write images as the dump ``name``; one of that name makes room once the new one is whole.

        write_dump("mine", {"train": images, "test": (test_images, test_labels)})

    Args:
        splits: all images of each split; or any iterable of parts of them, which are written one after the other, so
            that memory does not grow with their number.
        layout: shape, levels and type; None takes them from the first images: uint8 has 256 levels, uint16 65,536,
            float32 none.
        provenance: what to say of the images in ``dataset.json``.
        label_names: of the classes 0, 1, ..., or of the columns of labels.
        replace: remove a dump of that name that holds something else, rather than keep it as ``NAME.earlier1``.
    Raises:
        DataError: if images are of another type, shape or range than the first, labels are not whole numbers, one for
            each image, there is no split, or the disk is full.
    """
    if not splits:
        raise DataError(f"{name}: has no splits; give the images of at least one, such as train.")
    said = {"source": "written by a program", **(provenance or {})}
    if names := list(label_names):
        said["label_names"] = names
    parts = {split: _parts(images, f"{name}, split {split}") for split, images in splits.items()}
    if layout is None:
        layout, parts = _layout_of_first(parts, name)
    folder = place_of(dumps, "dumps")
    with DumpWriter(folder, name, layout, said, replace=replace) as writer:
        for split, chunks in parts.items():
            for images, labels in chunks:
                writer.add(split, images, labels)
    return Dump.open(folder, name)


Parts = Iterator[tuple[np.ndarray, np.ndarray | None]]


def _parts(images: Chunk | Iterable[Chunk], place: str) -> Parts:
    chunks = [images] if isinstance(images, (np.ndarray, Tensor, tuple)) else images
    are_labelled = None
    for chunk in chunks:
        pixels, labels = chunk if isinstance(chunk, tuple) else (chunk, None)
        array = np.asarray(pixels)
        if are_labelled not in (None, labels is not None):
            raise DataError(f"{place}: some parts have labels, others none. Give them for all images of a split.")
        are_labelled = labels is not None
        yield array[..., None] if array.ndim == 3 else array, _checked_labels(labels, len(array), place)


def _checked_labels(labels: Array | None, n: int, place: str) -> np.ndarray | None:
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2) or len(array) != n:
        raise DataError(
            f"{place}: labels of {array.dtype} {array.shape} for {n:,} images; needs integers (n,) or (n, k)."
        )
    return array


def _layout_of_first(parts: Mapping[str, Parts], name: str) -> tuple[Layout, dict[str, Parts]]:
    """The layout of the first images, and the parts with those put back."""
    split, chunks = next(iter(parts.items()))
    images, labels = next(chunks, (np.empty(0), None))
    levels = {"uint8": 2**8, "uint16": 2**16, "float32": 0}
    if images.ndim != 4 or images.dtype.name not in levels:
        raise DataError(
            f"{name}: images of {images.dtype} {images.shape}, needs uint8, uint16 or float32 (n, H, W[, C])."
        )

    def again() -> Parts:
        yield images, labels
        yield from chunks

    _, height, width, channels = images.shape
    layout = Layout((channels, height, width), levels[images.dtype.name], dtype=images.dtype.name)
    return layout, {**parts, split: again()}
