"""ImageNet at 32x32 and 64x64: two different sets under one name, whose numbers must never stand in one column."""

import argparse
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_scripts.archives import is_stray, open_archive, pictures_of, reading
from data_scripts.arrays import Chunk, Stream, permutation, write_arrays
from data_scripts.cifar10 import planes
from data_scripts.download import Source
from data_scripts.formats import NpyInZip
from data_scripts.kinds import by_number
from data_scripts.pictures import PictureDump, add_picture_options
from data_scripts.recipe import Recipe, Request
from data_scripts.render import Render
from lvae_torch.data.dump import Layout
from lvae_torch.errors import DataError

# --- the newer one: whole pictures squashed by a box filter (Chrabaszcz et al. 2017) ----------------------------------

UPSTREAM = "https://image-net.org/data/downsample"
ZIPS = {
    32: {
        "train": [
            Source("Imagenet32_train_npz.zip", 3_580_435_279,
                   "94226337ecc1b0309d9fcd0167127aaadc931587035fbcb53925235edbaec4fc"),
        ],
        "test": [
            Source("Imagenet32_val_npz.zip", 139_697_668,
                   "013990e6dec1237dcd1f9beadbab81ead6604cc119af5cacbfb59ae28148377a"),
        ],
    },
    64: {
        "train": [
            Source("Imagenet64_train_part1_npz.zip", 6_783_426_789,
                   "9422dc1dc5d092e9814a70a1cb7fc74880d2db5d88a0cb8a34ee363b12bde3f1"),
            Source("Imagenet64_train_part2_npz.zip", 6_780_506_068,
                   "9fafc115afb7e6c301e66dc16b2d737152b427bd5dab26e1293487a6819c7f30"),
        ],
        "test": [
            Source("Imagenet64_val_npz.zip", 529_522_927,
                   "e1e75133158a1924135a9c6f97a80d2d237b158945e0b34074e58e6c8430eeb8"),
        ],
    },
}  # fmt: skip


def write(request: Request, side: int) -> str:
    """1,281,167 + 50,000 images with their classes."""
    splits = {
        split: _stream([request.fetch(source, UPSTREAM) for source in sources], side, request.raw)
        for split, sources in ZIPS[side].items()
    }
    provenance = {
        "source": UPSTREAM,
        "variant": "box-filtered, Chrabaszcz et al. 2017; not the set of the older likelihood papers",
        "splits": "train; test is the official validation set",
        "labels": "class of the files, counted from 0",
        "licence": "non-commercial research",
    }
    return write_arrays(request, f"imagenet{side}", Layout((3, side, side), 256), provenance, splits)


def _stream(zips: Sequence[Path], side: int, raw: Path) -> Stream:
    return Stream(partial(_count, zips, raw), partial(_chunks, zips, side, raw), counts_quickly=False)


def _count(zips: Sequence[Path], raw: Path) -> int:
    return sum(NpyInZip(npz, "data").shape[0] for npz in _unpacked(zips, raw))


def _chunks(zips: Sequence[Path], side: int, raw: Path) -> Iterator[Chunk]:
    for npz in _unpacked(zips, raw):
        images = NpyInZip(npz, "data")
        labels = np.concatenate(list(NpyInZip(npz, "labels").rows())).flatten() - 1
        if images.dtype != np.uint8 or images.shape != (len(labels), 3 * side * side):
            raise DataError(
                f"{npz.name}: holds {images.dtype} {images.shape}, needs uint8 ({len(labels):,}, {3 * side * side:,})."
            )
        first = 0
        for rows in images.rows():
            yield planes(rows, side), labels[first : first + len(rows)]
            first += len(rows)


def _unpacked(zips: Sequence[Path], raw: Path) -> Iterator[Path]:
    """The .npz files in the zips, by their numbers, one at a time on disk, for reading needs to jump in them."""
    for path in zips:
        with open_archive(path) as archive:
            found = (name for name in archive.names if name.endswith(".npz") and not is_stray(name))
            names = sorted(found, key=by_number)
        if not names:
            raise DataError(f"{path}: holds no .npz files.")
        for name in names:
            with _unpacked_one(path, name, raw) as npz:
                yield npz


@contextmanager
def _unpacked_one(path: Path, name: str, raw: Path) -> Iterator[Path]:
    raw.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=raw) as folder:
        npz = Path(folder) / Path(name).name
        with reading(path, name), zipfile.ZipFile(path) as archive:
            if archive.getinfo(name).file_size > shutil.disk_usage(folder).free:
                raise DataError(
                    f"{folder}: {archive.getinfo(name).file_size:,} bytes are needed. Make room, and try again."
                )
            with archive.open(name) as packed, open(npz, "wb") as file:
                shutil.copyfileobj(packed, file, 2**20)
        yield npz


# --- the older one: van den Oord et al. 2016 --------------------------------------------------------------------------

TORRENT = "no longer on its site; torrent {} at academictorrents"
TARS = {
    32: (
        Source("train_32x32.tar", 4_113_018_880, "244a323d48f8d72f65ad8b54658c01fed68d2d7bdc77ccb43da58c11e94224e5",
               origin=TORRENT.format("bf62f5051ef878b9c357e6221e879629a9b4b172")),
        Source("valid_32x32.tar", 161_474_560, "862e559462b24cf736212a19f6b0d47b55c2dc8ebdaa95ccecfe71260124c8f7",
               origin=TORRENT.format("bf62f5051ef878b9c357e6221e879629a9b4b172")),
    ),
    64: (
        Source("train_64x64.tar", 12_112_588_800, "e2a2c1947a748d0d256e98e6d82800d855441dc9e4de2e71a773f1324c4524d7",
               origin=TORRENT.format("96816a530ee002254d29bf7a61c0c158d3dedc3b")),
        Source("valid_64x64.tar", 477_255_680, "eeac03ec4f585baf871d2b4cb9c974bfe345e74878a74e5820fe6eb1041629cd",
               origin=TORRENT.format("96816a530ee002254d29bf7a61c0c158d3dedc3b")),
    ),
}  # fmt: skip
VDVAE_SEED, VDVAE_VALID = 42, 5000


@dataclass(frozen=True)
class Oord:
    """The older set at one size."""

    side: int

    def write(self, request: Request) -> str:
        """1,281,149 + 49,999 images without classes."""
        vdvae = request.options["splits"] == "vdvae"
        with ExitStack() as stack:
            paths = request.fetch_by_hand(TARS[self.side])
            train, test = (stack.enter_context(open_archive(path)) for path in paths)
            names = pictures_of(train)
            parts, told = {"train": names}, "train; test is the valid file"
            if vdvae:
                told = f"train permuted with seed {VDVAE_SEED}, last {VDVAE_VALID:,} valid; test is the valid file"
                order = permutation(len(names), VDVAE_SEED)
                n_valid = min(VDVAE_VALID, max(1, len(names) // 10))
                parts = {"train": [names[i] for i in order[:-n_valid]], "valid": [names[i] for i in order[-n_valid:]]}
            dump = PictureDump(
                request,
                f"imagenet{self.side}_oord" + ("_vdvae" if vdvae else ""),
                Layout((3, self.side, self.side), 256),
                {
                    "source": "small ImageNet",
                    "variant": "van den Oord et al. 2016; not the newer box-filtered set",
                    "splits": told,
                    "licence": "non-commercial research",
                },
                Render((self.side, self.side), needs=(self.side, self.side)),
            )
            archives = {split: (train, part) for split, part in parts.items()}
            return dump.write({**archives, "test": (test, pictures_of(test))})


def add_oord_options(parser: argparse.ArgumentParser) -> None:
    add_picture_options(parser)
    parser.add_argument("--splits", choices=("plain", "vdvae"), default="plain", help="vdvae: 5,000 of train held out")


RECIPES = [
    Recipe(
        name=f"imagenet{side}",
        images="1,281,167 + 50,000",
        pixels=f"{side}x{side} colour, box-filtered",
        download=download,
        dump=dump,
        licence="non-commercial",
        write=partial(write, side=side),
    )
    for side, download, dump in ((32, "3.7 GB", "4.1 GB"), (64, "14 GB", "16.4 GB"))
] + [
    Recipe(
        name=f"imagenet{side}_oord",
        images="1,281,149 + 49,999",
        pixels=f"{side}x{side} colour, the older set",
        download=download,
        dump=dump,
        licence="non-commercial",
        write=Oord(side).write,
        add_own_options=add_oord_options,
        access="manual",
        variants={f"imagenet{side}_oord_vdvae": {"splits": "vdvae"}},
    )
    for side, download, dump in ((32, "4.3 GB", "4.1 GB"), (64, "12.6 GB", "16.4 GB"))
]
