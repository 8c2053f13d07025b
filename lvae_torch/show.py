"""``python -m lvae_torch.show DUMPS/NAME [--split NAME] [--out FILE]``: draw a contact sheet of a dump."""

from collections.abc import Sequence
from pathlib import Path

from lvae_torch.cli import main, new_parser

PARSER = new_parser("show")
PARSER.add_argument("dump", type=Path, help="folder of the dump, such as dataset_dumps/binarized_mnist")
PARSER.add_argument("--split", help="which split (default: the dump's first)")
PARSER.add_argument("--out", type=Path, help="PNG file to write (default: NAME_SPLIT.png beside the dump)")
if __name__ == "__main__":
    PARSER.parse_args()  # --help and wrong usage are answered before PyTorch is imported, which takes seconds

import numpy as np

from lvae_torch.data.dump import Dump
from lvae_torch.data.order import spread
from lvae_torch.errors import DataError
from lvae_torch.files import atomic_write

SHEET = 1200  # approximate width in pixels
SMALL = 56  # images below this are enlarged, so that single pixels can be seen
GAP = 2
GROUND = 96  # grey between the images, because their borders are often black or white


def contact_sheet(images: np.ndarray, n_levels: int, columns: int) -> np.ndarray:
    """Arrange images (n, H, W, C), C 1 or 3, row by row in one picture: uint8 (rows * h, columns * w, 3)."""
    factor = -(-SMALL // max(images.shape[1:3]))
    tiles = (images * (255 / (n_levels - 1))).round().astype(np.uint8)
    tiles = np.broadcast_to(tiles, (*tiles.shape[:3], 3)).repeat(factor, axis=1).repeat(factor, axis=2)
    empty = -len(tiles) % columns
    tiles = np.pad(tiles, ((0, empty), (0, GAP), (0, GAP), (0, 0)), constant_values=GROUND)
    tiles[len(images) :] = GROUND
    rows = tiles.reshape(-1, columns, *tiles.shape[1:])  # (rows, columns, h, w, 3)
    sheet = rows.transpose(0, 2, 1, 3, 4).reshape(-1, columns * tiles.shape[2], 3)
    return np.pad(sheet, ((GAP, 0), (GAP, 0), (0, 0)), constant_values=GROUND)


def scatter(points: np.ndarray, side: int = 600) -> np.ndarray:
    """Draw points of the plane (n, 2), darker where they are dense, with y upwards: uint8 (side, side, 3)."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, max((high - low).max() / 2 * 1.25, 1e-6)  # one scale for both axes, with a margin
    ends = [(middle[k] - half, middle[k] + half) for k in (0, 1)]
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=side, range=ends)
    ink = np.log1p(counts.T[::-1]) / np.log1p(counts.max())
    return np.broadcast_to((255 - 215 * ink).astype(np.uint8)[..., None], (side, side, 3))


def show(dump: Dump, split: str, out: Path) -> int:
    """Write a contact sheet of images spread evenly over ``split``; return how many it shows.

    Points of the plane are all drawn in one picture.

    Raises:
        DataError: if the split does not exist, images have neither 1 nor 3 channels, or ``out`` cannot be written.
    """
    channels, height, width = dump.image_shape
    images = dump.split(split)
    if dump.image_shape == (2, 1, 1):
        _save(scatter(images.gather(np.arange(len(images))).numpy().reshape(-1, 2)), out)
        return len(images)
    if channels not in (1, 3) or not dump.n_levels:
        raise DataError(f"{dump.folder}: a sheet shows images of 1 or 3 channels with levels; this has {dump.layout}.")
    columns = min(20, max(4, SHEET // max(SMALL, height, width)))
    chosen = images.gather(spread(len(images), columns**2)).numpy()
    _save(contact_sheet(chosen, dump.n_levels, columns), out)
    return len(chosen)


def labels_told(dump: Dump, split: str) -> str:
    """How many images each class has, or how many of each attribute are positive; "" without labels."""
    labels, names = dump.labels(split), dump.label_names
    if labels is None:
        return ""
    if labels.ndim == 2:
        counts = (labels > 0).sum(axis=0)
        told = [f"{name} {count:,}" for name, count in zip(names or range(labels.shape[1]), counts, strict=True)]
        return f"{labels.shape[1]} attributes; above 0 in: {_first(told)}"
    classes, counts = np.unique(labels, return_counts=True)
    called = [names[c] if 0 <= c < len(names) else str(c) for c in classes]
    return f"{len(classes)} classes: {_first([f'{c} {n:,}' for c, n in zip(called, counts, strict=True)])}"


def _first(told: Sequence[str], most: int = 20) -> str:
    return ", ".join(told[:most]) + (", ..." if len(told) > most else "")


def _save(picture: np.ndarray, out: Path) -> None:
    from PIL import Image

    with atomic_write(out) as file:
        Image.fromarray(picture).save(file, format="png")


def command(argv: Sequence[str]) -> None:
    """Show the dump that the arguments name."""
    arguments = PARSER.parse_args(argv)
    folder = arguments.dump.resolve()
    dump = Dump.open(folder.parent, folder.name)
    split = arguments.split or next(iter(dump.shards))
    out = arguments.out or folder.parent / f"{folder.name}_{split}.png"
    n = show(dump, split, out)
    counts = ", ".join(f"{name} {count:,}" for name, count in dump.counts.items())
    print(f"{dump.folder}: {counts}; images {dump.image_shape}, {dump.n_levels} levels; {dump.identity}")
    if told := labels_told(dump, split):
        print(f"labels of {split}: {told}")
    print(f"{out}: {n} images of {split}, evenly spread")


if __name__ == "__main__":
    main(command)
