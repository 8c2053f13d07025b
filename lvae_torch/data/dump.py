"""Dumps: uint8 images as plain ``.npy`` shards beside one JSON description. Anyone can open them with NumPy.

dataset_dumps/<dataset>/dataset.json
dataset_dumps/<dataset>/<split>_00000.npy      uint8 (n, H, W, C)
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lvae_torch.errors import DataError
from lvae_torch.files import check_name, read_json, sha256_of

VERSION = 1
DESCRIPTION = "dataset.json"


@dataclass(frozen=True)
class Shard:
    """One file of a split."""

    file: str
    count: int
    sha256: str


def content_hash(shards: Mapping[str, Sequence[Shard]]) -> str:
    """One hexadecimal sha256 for all images of a dump, in their order; reports print its beginning."""
    return hashlib.sha256("".join(s.sha256 for split in shards.values() for s in split).encode()).hexdigest()


@dataclass(frozen=True)
class Dump:
    """A dump whose description and file sizes have been checked (``verify`` checks the bytes too)."""

    folder: Path
    dataset: str
    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    n_levels: int
    """Pixels are 0 .. n_levels - 1: 2 for binary images, 256 for 8 bits."""
    shards: Mapping[str, tuple[Shard, ...]]
    """By split."""
    provenance: Mapping[str, Any]
    content_hash: str

    @classmethod
    def open(cls, dumps: Path, dataset: str) -> "Dump":
        """The dump named ``dataset`` in the folder ``dumps``.

        Raises:
            DataError: if it is missing (with the command that makes it), damaged, or of another version.
        """
        folder = dumps / check_name(dataset, "the dataset")
        path = folder / DESCRIPTION
        if not path.is_file():
            raise DataError(
                f"{folder}: no dump of that name. Make it: python -m data_scripts {dataset} --dumps {dumps} "
                f"(--list shows the datasets; --name {dataset} makes one of them under this name)"
            )
        description = read_json(path)
        version = description.get("version") if isinstance(description, dict) else None
        if version != VERSION:
            raise DataError(f"{path}: of version {version}, this program reads {VERSION}. Make the dump again.")
        try:
            dump = cls._read(folder, description)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not a description of a dump ({error!r}). Make the dump again.") from error
        for shard in dump._all_shards:
            dump._check(shard)
        return dump

    @classmethod
    def _read(cls, folder: Path, description: dict[str, Any]) -> "Dump":
        channels, height, width = map(int, description["image_shape"])
        dump = cls(
            folder=folder,
            dataset=description["dataset"],
            image_shape=(channels, height, width),
            n_levels=int(description["n_levels"]),
            shards={
                check_name(split, "a split"): tuple(
                    Shard(check_name(s["file"], "a shard"), int(s["count"]), str(s["sha256"])) for s in entry["shards"]
                )
                for split, entry in description["splits"].items()
            },
            provenance=description["provenance"],
            content_hash=description["content_hash"],
        )
        if min(dump.image_shape) < 1 or not 2 <= dump.n_levels <= 256:
            raise ValueError(f"images {dump.image_shape} with {dump.n_levels} levels")
        counts = {split: entry["count"] for split, entry in description["splits"].items()}
        if counts != dump.counts or not all(counts.values()):
            raise ValueError(f"counts {counts}, but the shards have {dump.counts}")
        if dump.content_hash != content_hash(dump.shards):
            raise ValueError("content_hash is not that of the shards")
        return dump

    @property
    def counts(self) -> dict[str, int]:
        """Images of each split."""
        return {split: sum(shard.count for shard in shards) for split, shards in self.shards.items()}

    @property
    def _all_shards(self) -> list[Shard]:
        return [shard for shards in self.shards.values() for shard in shards]

    def _map(self, shard: Shard) -> np.memmap:
        path = self.folder / shard.file
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: damaged or missing ({error}). Make the dump again.") from error
        return array

    def _check(self, shard: Shard) -> None:
        """Type, shape and length of a file; its bytes are for ``verify``."""
        path = self.folder / shard.file
        array = self._map(shard)
        channels, height, width = self.image_shape
        needed = (shard.count, height, width, channels)
        if array.shape != needed or array.dtype != np.uint8:
            raise DataError(f"{path}: holds {array.dtype} {array.shape}, needs uint8 {needed}. Make the dump again.")
        if path.stat().st_size != array.offset + array.nbytes:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes, more than its images have. Make the dump again.")

    def verify(self) -> None:
        """Compare every byte with the checksums.

        Raises:
            DataError: naming the first file that differs.
        """
        for shard in self._all_shards:
            path = self.folder / shard.file
            if sha256_of(path) != shard.sha256:
                raise DataError(f"{path}: its bytes differ from the checksum in {DESCRIPTION}. Make the dump again.")

    def split(self, name: str, limit: int = 0) -> "ImageSplit":
        """A split, or its first ``limit`` images.

        Raises:
            DataError: naming the splits there are.
        """
        if name not in self.shards:
            raise DataError(f"{self.folder}: has no split {name!r}; it has {', '.join(self.shards)}.")
        return ImageSplit(name, tuple(np.asarray(self._map(s)) for s in self.shards[name]), limit)


@dataclass(frozen=True)
class ImageSplit:
    """The images of a split, mapped from disk: memory does not grow with their number."""

    name: str
    arrays: tuple[np.ndarray, ...]  # uint8 (n, H, W, C) each
    limit: int = 0
    """Show only the first N; 0 for all."""

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(len(array) for array in self.arrays)])

    def __len__(self) -> int:
        total = int(self._starts[-1])
        return min(total, self.limit) if self.limit else total

    def gather(self, indices: np.ndarray) -> Tensor:
        """The images at ``indices``, in that order: uint8 (b, H, W, C). No Python work per image."""
        order = np.argsort(indices)  # each file is read forwards
        ordered = indices[order]
        assert len(indices) == 0 or (ordered[0] >= 0 and ordered[-1] < len(self)), (ordered[0], ordered[-1], len(self))
        out = np.empty((len(indices), *self.arrays[0].shape[1:]), dtype=np.uint8)
        bounds = np.searchsorted(ordered, self._starts)
        for shard in np.flatnonzero(np.diff(bounds)):
            here = slice(bounds[shard], bounds[shard + 1])
            out[order[here]] = self.arrays[shard][ordered[here] - self._starts[shard]]
        return torch.from_numpy(out)
