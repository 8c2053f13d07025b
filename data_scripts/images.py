"""Your own pictures: a folder or an archive of them, to a dump."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import get_args

from data_scripts.archives import open_archive, pictures_of
from data_scripts.held_out import add_held_out_options, random_split
from data_scripts.pictures import PictureDump, add_picture_options
from data_scripts.recipe import Recipe, Request
from data_scripts.render import Render, Resample
from lvae_torch.data.dump import Layout
from lvae_torch.data.shards import Encoding
from lvae_torch.errors import CfgError, DataError

FOLDERS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
LARGE = 512  # from this height on, images are kept as PNG unless asked otherwise


def write(request: Request) -> str:
    """All pictures in one size; folders called train, valid or test are splits, otherwise some are held out."""
    options = request.options
    if not request.source:
        raise CfgError("images: say where your pictures are: --source FOLDER_or_ARCHIVE.")
    if not options["name"]:
        raise CfgError("images: give the dump a name: --name NAME.")
    path, (height, width) = Path(request.source).expanduser(), _size(options["size"])
    channels = 1 if options["grey"] else 3
    encoding: Encoding = "png" if height >= LARGE else "raw"
    if options["encoding"] != "auto":
        encoding = options["encoding"]
    if not path.exists():
        raise DataError(f"{path}: no such folder or file.")
    with open_archive(path) as archive:
        names = pictures_of(archive)
        splits = by_folder(names) or random_split(names, options["valid"], options["seed"])
        dump = PictureDump(
            request,
            options["name"],
            Layout((channels, height, width), 256, encoding=encoding),
            {"source": path.name, "splits": "folders" if by_folder(names) else f"random, seed {options['seed']}"},
            Render((height, width), channels, options["crop"], resample=options["resample"], upright=True),
        )
        return dump.write({split: (archive, part) for split, part in splits.items()})


def by_folder(names: Sequence[str]) -> dict[str, list[str]] | None:
    """Splits by the first folder called like one; None unless all pictures lie in such, some of them in train."""
    splits: dict[str, list[str]] = {split: [] for split in ("train", "valid", "test")}
    for name in names:
        split = next((FOLDERS[part] for part in PurePosixPath(name.lower()).parts[:-1] if part in FOLDERS), None)
        if split is None:
            return None
        splits[split].append(name)
    return {split: part for split, part in splits.items() if part} if splits["train"] else None


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not height or not width:
        raise CfgError(f"--size is {text!r}; use a number such as 64, or HEIGHTxWIDTH such as 64x96.")
    return height, width


def add_options(parser: argparse.ArgumentParser) -> None:
    add_picture_options(parser)
    add_held_out_options(parser)
    parser.add_argument("--size", default="64", metavar="H[xW]", help="height and width of every image (default 64)")
    parser.add_argument(
        "--crop",
        choices=("centre", "none"),
        default="centre",
        help="keep proportions and cut, or squash (default centre)",
    )
    parser.add_argument("--resample", choices=get_args(Resample), default="bilinear", help="Pillow's filter")
    parser.add_argument("--grey", action="store_true", help="one channel instead of three")
    parser.add_argument(
        "--encoding", choices=("auto", "raw", "png"), default="auto", help=f"auto: png from {LARGE} pixels on, else raw"
    )


RECIPE = Recipe(
    name="images",
    images="yours",
    pixels="any",
    download="none",
    dump="H x W x 3 bytes an image",
    licence="yours",
    write=write,
    add_own_options=add_options,
    access="--source",
)
