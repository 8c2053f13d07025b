"""CelebA-HQ and FFHQ: faces of 1024x1024 pixels, kept whole or shrunk to 256x256."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_scripts.archives import open_archive, pictures_of, reading
from data_scripts.arrays import of_array, permutation, write_arrays
from data_scripts.held_out import add_held_out_options, random_split
from data_scripts.pictures import PictureDump, add_picture_options
from data_scripts.recipe import Recipe, Request
from data_scripts.render import Render
from data_scripts.upstream import Source
from lvae_torch.data.dump import Layout
from lvae_torch.errors import DataError

FULL = 1024
CELEBAHQ = Source(
    "data1024x1024.zip",
    origin="https://drive.google.com/file/d/1-LFFkFKNuyBO1sjkM4t_AArIXr3JAOyl (the copy that Efficient-VDVAE uses)",
    unpacked="0*.jpg",
)
FFHQ = Source(
    "images1024x1024.zip", 95_781_155_300, md5="5fa9a55f3508a8c6cf6be53ebe7acfc7",
    origin="https://archive.org/download/ffhq-dataset/images1024x1024.zip, or by https://github.com/NVlabs/ffhq-dataset",
    unpacked="0*.png",
)  # fmt: skip
FFHQ_ARRAY = Source("ffhq-256.npy")
FFHQ_ARRAY_UPSTREAM = "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets/vdvae-assets"
VDVAE_SEED = 5


@dataclass(frozen=True)
class Faces:
    """One of the sets at one size."""

    name: str
    archive: Source
    side: int
    licence: str

    def write(self, request: Request) -> str:
        """All faces, some of them held out."""
        options = request.options
        splits = options.get("splits", "random")
        if options.get("from_array"):
            return _write_array(request)
        (path,) = request.fetch_by_hand([self.archive])
        raw = options.get("raw", True)
        variant = self.name + ("" if splits == "random" else f"_{splits}")
        with open_archive(path) as archive:
            names = pictures_of(archive)
            parts = _vdvae_1024(names) if splits == "vdvae" else random_split(names, options["valid"], options["seed"])
            dump = PictureDump(
                request,
                variant,
                Layout((3, self.side, self.side), 256, encoding="raw" if raw else "png"),
                {"source": self.archive.name, "splits": self._told(options), "licence": self.licence},
                Render((self.side, self.side), needs=(FULL, FULL)),
            )
            return dump.write({split: (archive, part) for split, part in parts.items()})

    def _told(self, options: Any) -> str:
        if options.get("splits") == "vdvae":
            return "the last one in fourteen (65,000 and on) are valid, as VDVAE's"
        return f"valid chosen at random, seed {options['seed']}; see the lists of names"


def _vdvae_1024(names: Sequence[str]) -> dict[str, list[str]]:
    n_valid = max(1, len(names) // 14)  # 5,000 of 70,000
    return {"train": list(names[:-n_valid]), "valid": list(names[-n_valid:])}


def _write_array(request: Request) -> str:
    """FFHQ as the array of 256x256 that VDVAE was trained on, with its split."""
    path = request.fetch(FFHQ_ARRAY, FFHQ_ARRAY_UPSTREAM)
    with reading(path):
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (256, 256, 3):
        raise DataError(f"{path}: holds {images.dtype} {images.shape}, needs uint8 (N, 256, 256, 3).")
    train, valid = np.split(permutation(len(images), VDVAE_SEED), [-max(1, len(images) // 10)])
    splits = {"train": of_array(images, order=train), "valid": of_array(images, order=valid)}
    told = f"permuted with seed {VDVAE_SEED}, last tenth valid, as VDVAE's"
    provenance = {"source": FFHQ_ARRAY_UPSTREAM, "splits": told, "licence": "CC BY-NC-SA 4.0"}
    return write_arrays(request, "ffhq256_vdvae", Layout((3, 256, 256), 256), provenance, splits)


def _options(parser: argparse.ArgumentParser, *more: Callable[[argparse.ArgumentParser], object]) -> None:
    add_picture_options(parser)
    add_held_out_options(parser)
    for add in more:
        add(parser)


def _add_raw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw", action="store_true", help="keep plain pixels instead of PNG: twice the disk, faster")


def _add_vdvae_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--splits", choices=("random", "vdvae"), default="random", help="vdvae: files 65,000 and on")


def _add_array(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from-array",
        action="store_true",
        help="VDVAE's array and split instead: ffhq256_vdvae, automatic, 13.8 GB",
    )


CELEBAHQ_LICENCE, FFHQ_LICENCE = "non-commercial", "CC BY-NC-SA 4.0"
RECIPES = [
    Recipe(
        name="celebahq256",
        looks={"celebahq256": ((3, 256, 256), 256)},
        images="27,000 + 3,000",
        pixels="256x256 colour",
        download="about 3 GB",
        dump="5.9 GB",
        licence=CELEBAHQ_LICENCE,
        write=Faces("celebahq256", CELEBAHQ, 256, CELEBAHQ_LICENCE).write,
        add_own_options=_options,
        access="manual",
    ),
    Recipe(
        name="celebahq1024",
        looks={"celebahq1024": ((3, 1024, 1024), 256)},
        images="27,000 + 3,000",
        pixels="1024x1024 colour",
        download="about 3 GB",
        dump="about 40 GB as PNG",
        licence=CELEBAHQ_LICENCE,
        write=Faces("celebahq1024", CELEBAHQ, FULL, CELEBAHQ_LICENCE).write,
        add_own_options=lambda parser: _options(parser, _add_raw),
        access="manual",
    ),
    Recipe(
        name="ffhq256",
        looks=dict.fromkeys(("ffhq256", "ffhq256_vdvae"), ((3, 256, 256), 256)),
        images="63,000 + 7,000",
        pixels="256x256 colour",
        download="96 GB",
        dump="13.8 GB",
        licence=FFHQ_LICENCE,
        write=Faces("ffhq256", FFHQ, 256, FFHQ_LICENCE).write,
        add_own_options=lambda parser: _options(parser, _add_array),
        access="manual",
        variants={"ffhq256_vdvae": {"from_array": True}},
    ),
    Recipe(
        name="ffhq1024",
        looks=dict.fromkeys(("ffhq1024", "ffhq1024_vdvae"), ((3, 1024, 1024), 256)),
        images="63,000 + 7,000",
        pixels="1024x1024 colour",
        download="96 GB",
        dump="about 90 GB as PNG",
        licence=FFHQ_LICENCE,
        write=Faces("ffhq1024", FFHQ, FULL, FFHQ_LICENCE).write,
        add_own_options=lambda parser: _options(parser, _add_raw, _add_vdvae_split),
        access="manual",
        variants={"ffhq1024_vdvae": {"splits": "vdvae"}},
    ),
]
