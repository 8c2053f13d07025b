"""Where images go that come out of an archive; nothing is in its place before all of it is known to be right."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

import numpy as np

from lvae_torch.compression.index import Entry, ImageShape
from lvae_torch.compression.pictures import Levels, as_mode, fit_pictures, joined
from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import DataError


def write_dump(
    dumps: Path, name: str, split: str, groups: Iterable[np.ndarray], shape: ImageShape, n_levels: int
) -> int:
    """A dump with one split of images whose pixels are the model's levels; returns how many.

    Raises:
        DataError: if there is such a dump, or the images are not what was compressed.
    """
    if (dumps / name).exists():
        raise DataError(f"{dumps / name}: there already; choose another name.")
    dumps.mkdir(parents=True, exist_ok=True)
    dtype = "uint8" if n_levels <= 256 else "uint16"
    provenance = {"source": "decompressed"}
    n_images = 0
    with DumpWriter(dumps, name, Layout(shape, n_levels, dtype), provenance) as writer:
        for levels in groups:
            writer.add(split, levels.transpose(0, 2, 3, 1).astype(dtype))
            n_images += len(levels)
    return n_images


def write_pictures(
    folder: Path, groups: Iterable[np.ndarray], entries: Iterator[Entry], shape: ImageShape, n_levels: int
) -> int:
    """A folder of PNG files; returns how many.

    Raises:
        DataError: if there is something at ``folder``, the images are no pictures, or not what was compressed.
    """
    if shape[0] not in (1, 3) or not fit_pictures(n_levels):
        raise DataError(f"images {shape} of {n_levels} levels make no PNG files; add --dump for a dump of them.")
    values, n_pictures = Levels(n_levels), 0
    with _put_in_place(folder) as aside:
        for entry, levels in assembled(groups, entries, shape):
            path = aside / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as file:
                as_mode(values.values(levels), entry.mode).save(file, "PNG")
            n_pictures += 1
    return n_pictures


def numbered(n_images: int, shape: ImageShape) -> Iterator[Entry]:
    """Names for images that have none."""
    digits = len(str(n_images - 1))
    mode = "L" if shape[0] == 1 else "RGB"
    return (Entry(f"image_{i:0{digits}}.png", *shape[1:], mode) for i in range(n_images))


def assembled(
    groups: Iterable[np.ndarray], entries: Iterator[Entry], shape: ImageShape
) -> Iterator[tuple[Entry, np.ndarray]]:
    """Pictures of the tiles that come in groups, levels (H, W, C) each."""
    tiles = chain.from_iterable(groups)
    for entry in entries:
        yield entry, joined(islice(tiles, entry.n_tiles(shape)), entry, shape)
    if next(tiles, None) is not None:
        raise DataError("there are more tiles than the pictures have.")


@contextmanager
def _put_in_place(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder``, renamed at the end; gone if something failed."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: there already; choose another folder.")
    aside = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        aside.rename(folder)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be written ({error.strerror}).") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
