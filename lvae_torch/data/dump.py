"""Dumps: uint8 images as plain ``.npy`` shards beside one JSON description. Anyone can open them with NumPy.

dataset_dumps/<dataset>/dataset.json
dataset_dumps/<dataset>/<split>_00000.npy      uint8 (n, H, W, C)
"""

from collections.abc import Mapping
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
                f"{folder}: no dump of that name. Make it: python -m data_scripts {dataset} --dumps {dumps}"
            )
        try:
            dump = cls._read(folder, read_json(path))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not a description of a dump ({error!r}). Make the dump again.") from error
        for shard in (s for shards in dump.shards.values() for s in shards):
            dump._check(shard)
        return dump

    @classmethod
    def _read(cls, folder: Path, description: dict[str, Any]) -> "Dump":
        if description["version"] != VERSION:
            raise ValueError(f"version {description['version']}, this program reads {VERSION}")
        channels, height, width = description["image_shape"]
        shards = {
            check_name(split, "a split"): tuple(
                Shard(check_name(s["file"], "a shard"), int(s["count"]), str(s["sha256"])) for s in entry["shards"]
            )
            for split, entry in description["splits"].items()
        }
        return cls(
            folder=folder,
            dataset=description["dataset"],
            image_shape=(int(channels), int(height), int(width)),
            n_levels=int(description["n_levels"]),
            shards=shards,
            provenance=description["provenance"],
            content_hash=description["content_hash"],
        )

    def _map(self, shard: Shard) -> np.ndarray:
        path = self.folder / shard.file
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: damaged or missing ({error}). Make the dump again.") from error

    def _check(self, shard: Shard) -> None:
        array = self._map(shard)
        channels, height, width = self.image_shape
        needed = (shard.count, height, width, channels)
        if array.shape != needed or array.dtype != np.uint8:
            raise DataError(
                f"{self.folder / shard.file}: holds {array.dtype} {array.shape}, needs uint8 {needed}. "
                "Make the dump again."
            )

    def verify(self) -> None:
        """Compare every byte with the checksums.

        Raises:
            DataError: naming the first file that differs.
        """
        for shard in (s for shards in self.shards.values() for s in shards):
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
        return ImageSplit(name, tuple(self._map(shard) for shard in self.shards[name]), limit)


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
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        if (shards == shards[0]).all():
            return torch.from_numpy(self._take(int(shards[0]), indices))
        out = np.empty((len(indices), *self.arrays[0].shape[1:]), dtype=np.uint8)
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            out[here] = self._take(int(shard), indices[here])
        return torch.from_numpy(out)

    def _take(self, shard: int, indices: np.ndarray) -> np.ndarray:
        return np.take(self.arrays[shard], indices - self._starts[shard], axis=0)
