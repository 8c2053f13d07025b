"""Making a dump: streamed, checksummed, and there only when it is whole."""

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from lvae_torch.data.dump import DESCRIPTION, VERSION, Shard
from lvae_torch.errors import DataError
from lvae_torch.files import atomic_write, check_name, sha256_of, sync_folder, write_json

SHARD_BYTES = 64 * 2**20


class DumpWriter:
    """Writes ``dumps/<dataset>`` aside and puts it in place at the end; a kill or an error leaves no half dump."""

    def __init__(
        self,
        dumps: Path,
        dataset: str,
        image_shape: tuple[int, int, int],
        n_levels: int,
        provenance: Mapping[str, Any],
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.folder = dumps / check_name(dataset, "the dataset")
        self.dataset = dataset
        self.image_shape = image_shape
        self.n_levels = n_levels
        self.provenance = provenance
        self._aside = dumps / f".{dataset}.unfinished"
        self._per_shard = max(1, shard_bytes // int(np.prod(image_shape)))
        self._shards: defaultdict[str, list[Shard]] = defaultdict(list)
        self._pending: defaultdict[str, list[np.ndarray]] = defaultdict(list)

    def __enter__(self) -> Self:
        shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir(parents=True)
        return self

    def add(self, split: str, images: np.ndarray) -> None:
        """Append uint8 images, (n, H, W, C), to ``split``.

        Raises:
            DataError: if they are of another type, shape or range than the dump's.
        """
        check_name(split, "a split")
        channels, height, width = self.image_shape
        if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels):
            raise DataError(
                f"{self.dataset}: images of {images.dtype} {images.shape[1:]}, needs uint8 {(height, width, channels)}."
            )
        if images.size and int(images.max()) >= self.n_levels:
            raise DataError(f"{self.dataset}: a pixel is {images.max()}, but there are {self.n_levels} levels.")
        self._pending[split].append(images)
        while sum(map(len, self._pending[split])) >= self._per_shard:
            self._flush(split)

    def _flush(self, split: str) -> None:
        images = np.concatenate(self._pending[split])
        self._pending[split] = [images[self._per_shard :]] if len(images) > self._per_shard else []
        images = images[: self._per_shard]
        name = f"{split}_{len(self._shards[split]):05d}.npy"
        with atomic_write(self._aside / name) as file:
            np.save(file, images, allow_pickle=False)
        self._shards[split].append(Shard(name, len(images), sha256_of(self._aside / name)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        shutil.rmtree(self._aside, ignore_errors=True)

    def _finish(self) -> None:
        for split in [split for split, images in self._pending.items() if images]:
            self._flush(split)
        if not self._shards:
            raise DataError(f"{self.dataset}: no images were written.")
        hashes = "".join(shard.sha256 for shards in self._shards.values() for shard in shards)
        write_json(
            self._aside / DESCRIPTION,
            {
                "version": VERSION,
                "dataset": self.dataset,
                "image_shape": list(self.image_shape),
                "n_levels": self.n_levels,
                "splits": {
                    split: {"count": sum(s.count for s in shards), "shards": [asdict(s) for s in shards]}
                    for split, shards in self._shards.items()
                },
                "provenance": dict(self.provenance),
                "content_hash": hashlib.sha256(hashes.encode()).hexdigest(),
            },
        )
        if self.folder.exists():  # only now: the old dump stays until the new one is whole
            old = self._aside.with_suffix(".old")
            shutil.rmtree(old, ignore_errors=True)
            self.folder.rename(old)
            self._aside.rename(self.folder)
            shutil.rmtree(old)
        else:
            self._aside.rename(self.folder)
        sync_folder(self.folder.parent)
