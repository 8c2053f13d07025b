"""Making a dump: streamed, checksummed, and there only when it is whole."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

from lvae_torch.data.dump import DESCRIPTION, VERSION, Shard, content_hash
from lvae_torch.errors import DataError
from lvae_torch.files import atomic_write, check_name, sha256_of, sync_folder, write_json

SHARD_BYTES = 64 * 2**20


@contextmanager
def only_one(lock_file: Path, what: str) -> Iterator[None]:
    """Make ``what`` in one process at a time; the system lets go of the lock when the process ends, however it ends.

    Raises:
        DataError: if another process makes it already, or the lock file cannot be written.
    """
    lock = FileLock(lock_file, timeout=0)
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise DataError(f"{lock_file}: another process is making {what}. Wait for it, or stop it.") from error
    except OSError as error:
        raise DataError(f"{lock_file}: cannot be written ({error.strerror}). Choose another --dumps folder.") from error
    try:
        yield
    finally:
        lock.release()


class DumpWriter:
    """Writes ``dumps/<dataset>`` aside and puts it in place at the end; a kill or an error leaves no half dump.

    A context manager. Memory is one shard for each split that is open, whatever the number of images.
    """

    def __init__(
        self,
        dumps: Path,
        dataset: str,
        image_shape: tuple[int, int, int],
        n_levels: int,
        provenance: Mapping[str, Any],
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """
        Args:
            image_shape: (C, H, W).
            n_levels: pixels are 0 .. n_levels - 1: 2 for binary images, 256 for 8 bits.
            provenance: where the images come from and what was done to them, for ``dataset.json``.
        """
        self.folder = dumps / check_name(dataset, "the dataset")
        self.dataset = dataset
        self.image_shape = image_shape
        self.n_levels = n_levels
        self.provenance = provenance
        self._aside = dumps / f".{dataset}.unfinished"
        self._per_shard = max(1, shard_bytes // int(np.prod(image_shape)))
        self._shards: dict[str, list[Shard]] = {}
        self._pending: dict[str, tuple[np.ndarray, int]] = {}  # by split: a shard to be, and how many images it has
        self._held = ExitStack()

    def __enter__(self) -> Self:
        self._held.enter_context(only_one(self.folder.with_name(f".{self.dataset}.lock"), f"the dump {self.dataset}"))
        self._held.callback(shutil.rmtree, self._aside, ignore_errors=True)
        shutil.rmtree(self._aside, ignore_errors=True)  # what a killed process left
        self._aside.mkdir()
        return self

    def add(self, split: str, images: np.ndarray) -> None:
        """Append uint8 images, (n, H, W, C), to ``split``.

        Raises:
            DataError: if they are of another type, shape or range than the dump's, or the disk is full.
        """
        check_name(split, "a split")
        channels, height, width = self.image_shape
        if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels):
            raise DataError(
                f"{self.dataset}: images of {images.dtype} {images.shape[1:]}, needs uint8 {(height, width, channels)}."
            )
        if images.size and int(images.max()) >= self.n_levels:
            raise DataError(f"{self.dataset}: a pixel is {images.max()}, but there are {self.n_levels} levels.")
        while len(images):
            shard, filled = self._pending.get(split) or self._open(split)
            n = min(len(images), len(shard) - filled)
            shard[filled : filled + n] = images[:n]
            images = images[n:]
            self._pending[split] = shard, filled + n
            if filled + n == len(shard):
                self._flush(split)

    def _open(self, split: str) -> tuple[np.ndarray, int]:
        self._shards.setdefault(split, [])  # splits are listed in the order in which they began
        channels, height, width = self.image_shape
        return np.empty((self._per_shard, height, width, channels), dtype=np.uint8), 0

    def _flush(self, split: str) -> None:
        shard, filled = self._pending.pop(split)
        path = self._aside / f"{split}_{len(self._shards[split]):05d}.npy"
        with atomic_write(path) as file:
            np.save(file, shard[:filled], allow_pickle=False)
        self._shards[split].append(Shard(path.name, filled, sha256_of(path)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._held:
            if kind is None:
                self._finish()

    def _finish(self) -> None:
        for split in tuple(self._pending):
            self._flush(split)
        if not self._shards:
            raise DataError(f"{self.dataset}: no images were written.")
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
                "content_hash": content_hash(self._shards),
            },
        )
        self._put_in_place()

    def _put_in_place(self) -> None:
        old = self._aside.with_suffix(".old")
        shutil.rmtree(old, ignore_errors=True)
        if self.folder.exists():  # only now: the old dump stays until the new one is whole
            self.folder.rename(old)
        self._aside.rename(self.folder)
        sync_folder(self.folder.parent)
        shutil.rmtree(old, ignore_errors=True)
