"""Dumps: images as files that anyone can open with NumPy, beside one JSON description.

dataset_dumps/<dataset>/dataset.json
dataset_dumps/<dataset>/<split>_00000.npy            (n, H, W, C), uint8 almost always
dataset_dumps/<dataset>/<split>_00000.bin            instead, where images are kept as PNG (see ``shards``)
dataset_dumps/<dataset>/<split>_00000_labels.npy     int64 (n,), where there are classes; (n, k) of k attributes
dataset_dumps/<dataset>/<split>_00000_names.txt      one line an image, where images were files of their own
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.catalogue import CATALOGUE, CODES, OWN
from lvae_torch.data.shards import DTYPES, Encoding, Rows, open_shard, unreadable
from lvae_torch.distributed.stopping import Tell, nothing
from lvae_torch.errors import DataError
from lvae_torch.files import BROKEN_ARRAY, check_name, read_json, sha256_of

VERSION = 2
DESCRIPTION = "dataset.json"
NO_CLASS = -1  # label of an image that has no class, where others of its split have one


@dataclass(frozen=True)
class Shard:
    """One piece of a split: files of images, labels and names, each with its checksum."""

    file: str
    count: int
    sha256: str
    labels: str = ""
    labels_sha256: str = ""
    names: str = ""
    names_sha256: str = ""

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> "Shard":
        """Read one entry of the description and check its file names."""
        shard = cls(**entry)
        for file in filter(None, (shard.file, shard.labels, shard.names)):
            check_name(file, "a shard")
        return shard

    @property
    def checksums(self) -> dict[str, str]:
        """sha256 of each file."""
        files = {self.file: self.sha256, self.labels: self.labels_sha256, self.names: self.names_sha256}
        return {file: sha256 for file, sha256 in files.items() if file}


@dataclass(frozen=True)
class Layout:
    """The format that all images of a dump share."""

    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    n_levels: int
    """Pixels are 0 .. n_levels - 1: 2 for binary images, 256 for 8 bits; 0 for continuous values."""
    dtype: str = "uint8"
    encoding: Encoding = "raw"

    def __post_init__(self) -> None:
        most = {"uint8": 2**8, "uint16": 2**16, "float32": 0}.get(self.dtype)
        if min(self.image_shape) < 1 or most is None or not min(2, most) <= self.n_levels <= most:
            raise ValueError(f"images {self.image_shape} of {self.dtype} with {self.n_levels} levels")
        if self.encoding not in get_args(Encoding):
            raise ValueError(f"encoding {self.encoding!r}")
        if self.encoding == "png" and (self.image_shape[0] not in (1, 3) or self.dtype != "uint8"):
            raise ValueError(f"images {self.image_shape} of {self.dtype} as PNG, which takes uint8 of 1 or 3 channels")

    @property
    def hwc(self) -> tuple[int, int, int]:
        """(H, W, C), the axis order in the files."""
        channels, height, width = self.image_shape
        return height, width, channels


assert set(DTYPES) == {"uint8", "uint16", "float32"}


def content_hash(shards: Mapping[str, Sequence[Shard]]) -> str:
    """Hexadecimal sha256 of all images of a dump in order; reports print its first digits."""
    return hashlib.sha256("".join(s.sha256 for split in shards.values() for s in split).encode()).hexdigest()


def description_hash(description: Mapping[str, Any]) -> str:
    """Hexadecimal sha256 of a description without its own ``sha256`` key; layout of the file does not matter."""
    said = {key: value for key, value in description.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Dump:
    """A dump whose description and file sizes have been checked (``verify`` checks the bytes too)."""

    folder: Path
    dataset: str
    layout: Layout
    shards: Mapping[str, tuple[Shard, ...]]
    """The shards of each split."""
    provenance: Mapping[str, Any]
    content_hash: str

    @classmethod
    def open(cls, dumps: Path, dataset: str) -> "Dump":
        """Open the dump named ``dataset`` in the folder ``dumps``.

        Raises:
            DataError: if the dump is missing (with the command that makes it), damaged, or of another version.
        """
        folder = dumps / check_name(dataset, "the dataset")
        path = folder / DESCRIPTION
        if not path.is_file():
            raise DataError(f"{folder}: no dump of that name. {_how_to_make(dumps, dataset)}")
        description = read_json(path)
        version = description.get("version") if isinstance(description, dict) else None
        if version != VERSION:
            raise DataError(f"{path}: of version {version}, this program reads {VERSION}. Make the dump again.")
        try:
            dump = cls._read(folder, description)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not a description of a dump ({error!r}). Make the dump again.") from error
        for split in dump.shards:
            dump.split(split)
        return dump

    @classmethod
    def _read(cls, folder: Path, description: dict[str, Any]) -> "Dump":
        channels, height, width = map(int, description["image_shape"])
        dump = cls(
            folder=folder,
            dataset=description["dataset"],
            layout=Layout((channels, height, width), *(description[key] for key in ("n_levels", "dtype", "encoding"))),
            shards={
                check_name(split, "a split"): tuple(map(Shard.read, entry["shards"]))
                for split, entry in description["splits"].items()
            },
            provenance=description["provenance"],
            content_hash=description["content_hash"],
        )
        counts = {split: entry["count"] for split, entry in description["splits"].items()}
        if counts != dump.counts or not all(counts.values()):
            raise ValueError(f"counts {counts}, but the shards have {dump.counts}")
        if dump.content_hash != content_hash(dump.shards):
            raise ValueError("content_hash is not that of the shards")
        if description.get("sha256", own := description_hash(description)) != own:  # older dumps lack it
            raise ValueError("its sha256 is not that of what it says")
        return dump

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.layout.image_shape

    @property
    def n_levels(self) -> int:
        return self.layout.n_levels

    @property
    def counts(self) -> dict[str, int]:
        """Number of images in each split."""
        return {split: sum(shard.count for shard in shards) for split, shards in self.shards.items()}

    @property
    def identity(self) -> str:
        """Name and first digits of the content hash, with a warning if the source files were not upstream's."""
        other = ", not upstream's files" if self.provenance.get("other_files") else ""
        return f"{self.dataset} (content {self.content_hash[:12]}{other})"

    def verify(self, *splits: str, tell: Tell = nothing) -> None:
        """Compare every byte, of all splits unless some are named, with the checksums.

        Args:
            tell: hears how many bytes were compared, and of how many.
        Raises:
            DataError: naming the first file that differs.
        """
        shards = [shard for split in splits or self.shards for shard in self._shards_of(split)]
        files = {self.folder / file: sha256 for shard in shards for file, sha256 in shard.checksums.items()}
        sizes = {path: path.stat().st_size if path.is_file() else 0 for path in files}
        done, total = 0, sum(sizes.values())
        tell(done, total)
        for path, sha256 in files.items():
            if not path.is_file() or sha256_of(path) != sha256:
                raise DataError(f"{path}: its bytes differ from the checksum in {DESCRIPTION}. Make the dump again.")
            tell(done := done + sizes[path], total)

    def split(self, name: str, limit: int = 0) -> "ImageSplit":
        """Open a split, or its first ``limit`` images.

        Raises:
            DataError: naming the existing splits, or the missing or damaged file.
        """
        layout = self.layout
        rows = (
            open_shard(self.folder / s.file, (s.count, *layout.hwc), layout.dtype, layout.encoding)
            for s in self._shards_of(name)
        )
        return ImageSplit(name, tuple(rows), limit)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Of the classes 0, 1, ..., or of the columns of labels; empty where they have none."""
        names = self.provenance.get("label_names", ())
        return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()

    def labels(self, split: str) -> np.ndarray | None:
        """Class of each image of ``split``, int64 (n,), or several numbers (n, k); None where there are no classes."""
        files = [shard.labels for shard in self._shards_of(split)]
        if not all(files):
            return None
        try:
            return np.concatenate([np.load(self.folder / file, allow_pickle=False) for file in files])
        except BROKEN_ARRAY as error:
            raise unreadable(f"{self.folder}: labels of {split} are damaged", error) from error

    def names(self, split: str) -> list[str] | None:
        """File name of each image of ``split``; None if the images were not separate files."""
        files = [shard.names for shard in self._shards_of(split)]
        if not all(files):
            return None
        try:
            return [line for file in files for line in (self.folder / file).read_text("utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise unreadable(f"{self.folder}: names of {split} are damaged", error) from error

    def _shards_of(self, split: str) -> tuple[Shard, ...]:
        if split not in self.shards:
            raise DataError(f"{self.folder}: has no split {split!r}; it has {', '.join(self.shards)}.")
        return self.shards[split]


def _how_to_make(dumps: Path, dataset: str) -> str:
    if dataset in CODES:
        return f"Train its run first; it makes it: lvae synthesize {dataset[:-6]} --mode encoding"
    if dataset in OWN:
        side = OWN[dataset][0][1]
        return f"Make it: lvae data images --source FOLDER --name {dataset} --size {side} --dumps {dumps}"
    if dataset in CATALOGUE:
        return f"Make it: lvae data {dataset} --dumps {dumps}"
    return f"Make it: lvae data DATASET --name {dataset} --dumps {dumps}, with a DATASET of --list."


@dataclass(frozen=True)
class ImageSplit:
    """The images of a split, mapped from disk: memory does not grow with their number."""

    name: str
    arrays: tuple[Rows, ...]  # (n, H, W, C) each
    limit: int = 0
    """Use only the first N images; 0 for all."""
    labels: np.ndarray | None = None
    """Class of each image, int64 (n,), for class-conditional models; see ``classes``."""

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(len(array) for array in self.arrays)])

    def __len__(self) -> int:
        total = int(self._starts[-1])
        return min(total, self.limit) if self.limit else total

    def gather(self, indices: np.ndarray) -> Tensor:
        """The images at ``indices``, in that order: (b, H, W, C). Raw images need no Python work per image."""
        order = np.argsort(indices)  # so that each file is read forwards
        ordered = indices[order]
        assert len(indices) == 0 or (ordered[0] >= 0 and ordered[-1] < len(self)), (ordered[0], ordered[-1], len(self))
        out = np.empty((len(indices), *self.arrays[0].shape[1:]), dtype=self.arrays[0].dtype)
        bounds = np.searchsorted(ordered, self._starts)
        for shard in np.flatnonzero(np.diff(bounds)):
            here = slice(bounds[shard], bounds[shard + 1])
            out[order[here]] = self.arrays[shard][ordered[here] - self._starts[shard]]
        return torch.from_numpy(out)

    def labels_of(self, indices: np.ndarray) -> Tensor | None:
        """The classes of the images at ``indices``, int64 (b,); None for an unconditional model."""
        return None if self.labels is None else torch.from_numpy(self.labels[indices])
