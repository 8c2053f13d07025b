"""ImageNet at 32x32 and 64x64: two different sets under one name, whose numbers must never stand in one column."""

import argparse
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_scripts.archives import CHUNK, is_stray, open_archive, pictures_of, reading
from data_scripts.arrays import Chunk, Stream, permutation, write_arrays
from data_scripts.cifar10 import planes
from data_scripts.formats import NpyInZip, read_pickle
from data_scripts.kinds import by_number
from data_scripts.pictures import PictureDump, add_picture_options
from data_scripts.recipe import Recipe, Request
from data_scripts.render import Render
from data_scripts.unpacking import NoRoomError, unpack
from data_scripts.upstream import Source
from lvae_torch.data.dump import Layout
from lvae_torch.errors import DataError

# --- the newer one: whole pictures squashed by a box filter (Chrabaszcz et al. 2017) ----------------------------------

UPSTREAM = "https://image-net.org/data/downsample"
BATCH = re.compile(r"(train_data_batch_(\d+)|val_data)(\.npz)?")  # an .npz, or a pickle of the same
N_BATCHES = 10


def _zip(name: str, size: int, sha256: str) -> Source:
    kind = "val_data*" if "_val_" in name else "train_data_batch_*"
    return Source(name, size, sha256, also=(name.replace("_npz", ""),), unpacked=kind)


ZIPS = {
    32: {
        "train": [
            _zip("Imagenet32_train_npz.zip", 3_580_435_279,
                   "94226337ecc1b0309d9fcd0167127aaadc931587035fbcb53925235edbaec4fc"),
        ],
        "test": [
            _zip("Imagenet32_val_npz.zip", 139_697_668,
                   "013990e6dec1237dcd1f9beadbab81ead6604cc119af5cacbfb59ae28148377a"),
        ],
    },
    64: {
        "train": [
            _zip("Imagenet64_train_part1_npz.zip", 6_783_426_789,
                   "9422dc1dc5d092e9814a70a1cb7fc74880d2db5d88a0cb8a34ee363b12bde3f1"),
            _zip("Imagenet64_train_part2_npz.zip", 6_780_506_068,
                   "9fafc115afb7e6c301e66dc16b2d737152b427bd5dab26e1293487a6819c7f30"),
        ],
        "test": [
            _zip("Imagenet64_val_npz.zip", 529_522_927,
                   "e1e75133158a1924135a9c6f97a80d2d237b158945e0b34074e58e6c8430eeb8"),
        ],
    },
}  # fmt: skip


def write(request: Request, side: int) -> str:
    """1,281,167 + 50,000 images with their classes."""
    splits = {
        split: _stream(request, [request.fetch(source, UPSTREAM) for source in sources], side, split)
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


def _stream(request: Request, places: Sequence[Path], side: int, split: str) -> Stream:
    batches = _batches(places, split)
    found = {int(BATCH.fullmatch(Path(name).name)[2] or 0) for _, name in batches}  # type: ignore[index]
    if split == "train" and found != set(range(1, N_BATCHES + 1)):
        request.refuse(f"{places[0]}: has {len(found)} of the {N_BATCHES} training batches.")
    return Stream(partial(_count, batches, request.raw), partial(_chunks, batches, side, request.raw), False)


def _count(batches: Sequence[tuple[Path, str]], raw: Path) -> int:
    return sum(len(_Batch(file).labels) for file in _on_disk(batches, raw))


def _chunks(batches: Sequence[tuple[Path, str]], side: int, raw: Path) -> Iterator[Chunk]:
    for file in _on_disk(batches, raw):
        batch, first = _Batch(file), 0
        if batch.dtype != np.uint8 or batch.shape != (len(batch.labels), 3 * side * side):
            raise DataError(
                f"{file.name}: holds {batch.dtype} {batch.shape}, needs uint8 ({len(batch.labels):,}, "
                f"{3 * side * side:,})."
            )
        if batch.labels.min() < 0 or batch.labels.max() > 999:
            raise DataError(f"{file.name}: has classes from {batch.labels.min() + 1} to {batch.labels.max() + 1}.")
        for rows in batch.rows():
            yield planes(rows, side), batch.labels[first : first + len(rows)]
            first += len(rows)


class _Batch:
    """One file of images: an ``.npz``, read a piece at a time, or a pickle, which is read whole."""

    def __init__(self, file: Path) -> None:
        if file.suffix == ".npz":
            images = NpyInZip(file, "data")
            self.rows, self.shape, self.dtype = images.rows, images.shape, images.dtype
            labels = np.concatenate(list(NpyInZip(file, "labels").rows())).flatten()
        else:
            values = read_pickle(file.read_bytes(), file)
            data, labels = np.asarray(values.get("data")), np.asarray(values.get("labels"))
            self.rows, self.shape, self.dtype = lambda: iter([data]), data.shape, data.dtype
        self.labels = labels.astype(np.int64) - 1


def _batches(places: Sequence[Path], split: str) -> list[tuple[Path, str]]:
    """The files of a split in the zips, or in the folder that they were unpacked into, by their numbers."""
    found = []
    for path in dict.fromkeys(places):
        with open_archive(path) as archive:
            able = [name for name in archive.names if not is_stray(name) and BATCH.fullmatch(Path(name).name)]
        names = [name for name in able if Path(name).name.startswith("val") == (split == "test")]
        if not names:
            raise DataError(f"{path}: holds no .npz files, nor pickles, of the {split} images.")
        found += [(path, name) for name in sorted(names, key=by_number)]
    return found


def _on_disk(batches: Sequence[tuple[Path, str]], raw: Path) -> Iterator[Path]:
    """Each file as one of its own, one at a time on disk, for reading needs to jump in them."""
    for path, name in batches:
        if path.is_dir():
            yield path / name
        else:
            with _unpacked_one(path, name, raw) as file:
                yield file


@contextmanager
def _unpacked_one(path: Path, name: str, raw: Path) -> Iterator[Path]:
    raw.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=raw) as folder:
        npz = Path(folder) / Path(name).name
        with reading(path, name), zipfile.ZipFile(path) as archive:
            needed = archive.getinfo(name).file_size
        if needed > shutil.disk_usage(folder).free:
            raise NoRoomError(f"{folder}: {needed:,} bytes are needed. Make room, and try again.")
        yield unpack(npz, f"{path}: {name}", _pieces(path, name))


def _pieces(path: Path, name: str) -> Iterator[bytes]:
    """What a member of a zip unpacks to, a part at a time."""
    with reading(path, name), zipfile.ZipFile(path) as archive, archive.open(name) as packed:
        while piece := packed.read(CHUNK):
            yield piece


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
        looks={f"imagenet{side}": ((3, side, side), 256)},
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
        looks={f"imagenet{side}_oord{variant}": ((3, side, side), 256) for variant in ("", "_vdvae")},
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
