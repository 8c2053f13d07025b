"""Writes a dump as a stream with checksums; it appears only when whole, and can continue after a kill."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from lvae_torch.data.dump import DESCRIPTION, VERSION, Layout, Shard, content_hash, description_hash
from lvae_torch.data.replacing import check_place, differences, free_place
from lvae_torch.data.shards import SUFFIX, Encoding, encode_png, encoded_shard
from lvae_torch.data.sharing import locked, share
from lvae_torch.distributed.place import n_cores
from lvae_torch.errors import DataError, say
from lvae_torch.files import atomic_write, check_name, finite, read_json, sha256_of, sync_folder, write_json, write_text

SHARD_BYTES: dict[Encoding, int] = {"raw": 64 * 2**20, "png": 256 * 2**20}  # before encoding
JOURNAL = "unfinished.json"


@dataclass
class _Pending:
    """A shard that is not full yet."""

    images: np.ndarray
    filled: int = 0
    labels: list[np.ndarray] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


class DumpWriter:
    """Writes ``dumps/<dataset>`` aside and renames it at the end, so a kill or an error leaves no half dump.

    A context manager. It holds one shard per open split in memory, however many images there are.
    """

    def __init__(
        self,
        dumps: Path,
        dataset: str,
        layout: Layout,
        provenance: Mapping[str, Any],
        shard_bytes: int | None = None,
        continued: bool = False,
        replace: bool = True,
        ledger: str = "",
        still_true: Callable[[Path], bool] | None = None,
    ) -> None:
        """
        Args:
            provenance: where the images come from and what was done to them, for ``dataset.json``.
            shard_bytes: about the size of a file, before encoding.
            continued: take up what a killed or failed process left, if it was making the same; see ``count``.
            replace: remove a dump of that name that was made from something else; without it, that one is kept under
                another name, which is told.
            ledger: a file in ``aside`` that the caller keeps there until the dump is whole.
            still_true: asked, with the folder, whether what was begun may be continued.
        """
        self.folder = dumps / check_name(dataset, "the dataset")
        self.dataset = dataset
        self.layout = layout
        self.provenance = dict(provenance)
        self.continued = continued
        self.replace = replace
        self.aside = dumps / f".{dataset}.unfinished"
        """Where it is made."""
        self._ledger, self._still_true = ledger, still_true
        self._old = self.aside.with_suffix(".old")
        image_bytes = int(np.prod(layout.image_shape)) * np.dtype(layout.dtype).itemsize
        self._per_shard = max(1, (shard_bytes or SHARD_BYTES[layout.encoding]) // image_bytes)
        self._begun = self._identity_of(self.provenance)
        self._shards: dict[str, list[Shard]] = {}
        self._pending: dict[str, _Pending] = {}
        self._held = ExitStack()

    def __enter__(self) -> Self:
        check_place(self.folder)
        lock_file = self.folder.with_name(f".{self.dataset}.lock")
        self._held.enter_context(locked(lock_file, f"the dump {self.dataset}", wait=False))
        if self._old.is_dir() and not self.folder.exists():  # killed between the two renames of ``_put_in_place``
            self._old.rename(self.folder)
        if not (self.continued and self._take_up()):
            shutil.rmtree(self.aside, ignore_errors=True)  # what a killed process left
            try:
                self.aside.mkdir()
                share(self.aside)
            except OSError as error:
                self._held.close()
                raise DataError(
                    f"{self.aside}: cannot be made ({error.strerror}). Make room, and try again."
                ) from error
        return self

    def count(self, split: str) -> int:
        """Images of ``split`` added so far; a continued dump begins with those already on disk."""
        pending = self._pending.get(split)
        return sum(shard.count for shard in self._shards.get(split, [])) + (pending.filled if pending else 0)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits begun so far, in order."""
        return tuple(self._shards)

    def last_name(self, split: str) -> str | None:
        """Name of the last image on disk, after which a continued dump goes on."""
        shards = self._shards.get(split)
        if not shards or not shards[-1].names:
            return None
        return (self.aside / shards[-1].names).read_text("utf-8").splitlines()[-1]

    def add(
        self, split: str, images: np.ndarray, labels: np.ndarray | None = None, names: Sequence[str] | None = None
    ) -> None:
        """Append images, (n, H, W, C), to ``split``.

        Args:
            labels: class of each image, integers (n,); give them for all images of a split or for no image.
            names: file name of each image; likewise.
        Raises:
            DataError: if type, shape or range differ from the dump's, or the disk is full.
        """
        check_name(split, "a split")
        self._check(images, split)
        for first in self._pieces(split, len(images)):
            pending = self._pending[split]
            piece = slice(first, first + len(pending.images) - pending.filled)
            n = len(images[piece])
            pending.images[pending.filled : pending.filled + n] = images[piece]
            pending.filled += n
            if labels is not None:
                pending.labels.append(np.asarray(labels[piece], dtype=np.int64))
            if names is not None:
                pending.names += names[piece]
            if pending.filled == len(pending.images):
                self._flush(split)

    def _check(self, images: np.ndarray, split: str) -> None:
        layout = self.layout
        if images.dtype != layout.dtype or images.shape[1:] != layout.hwc:
            raise DataError(
                f"{self.dataset}: images of {images.dtype} {images.shape[1:]}, needs {layout.dtype} {layout.hwc}."
            )
        can_exceed = layout.n_levels < 2 ** (8 * images.itemsize)
        if layout.n_levels and can_exceed and images.size and int(images.max()) >= layout.n_levels:
            raise DataError(f"{self.dataset}: a pixel is {images.max()}, but there are {layout.n_levels} levels.")
        if not layout.n_levels and not np.isfinite(images).all():
            k, *at = np.argwhere(~np.isfinite(images))[0].tolist()
            raise DataError(
                f"{self.dataset}: image {self.count(split) + k} of split {split} has {images[k, *at]} at row, column "
                f"and channel {at}, all counted from 0. Leave it out, or put a number there."
            )

    def _pieces(self, split: str, n: int) -> Iterator[int]:
        """Yield where to split ``n`` images so that each part fits into the open shard; opens shards as needed."""
        first = 0
        while first < n:
            if split not in self._pending:
                self._shards.setdefault(split, [])  # splits are listed in the order in which they began
                self._pending[split] = _Pending(np.empty((self._per_shard, *self.layout.hwc), dtype=self.layout.dtype))
            room = self._per_shard - self._pending[split].filled
            yield first
            first += room

    def _flush(self, split: str) -> None:
        pending = self._pending[split]
        n = pending.filled
        path = self.aside / f"{split}_{len(self._shards[split]):05d}{SUFFIX[self.layout.encoding]}"
        with atomic_write(path) as file:
            if self.layout.encoding == "png":
                with ThreadPoolExecutor(n_cores()) as threads:
                    file.writelines(encoded_shard(list(threads.map(encode_png, pending.images[:n]))))
            else:
                np.save(file, pending.images[:n], allow_pickle=False)
        extras: dict[str, str] = {}
        if pending.labels:
            extras |= self._write_labels(path, np.concatenate(pending.labels), n)
        if pending.names:
            extras |= self._write_names(path, pending.names, n)
        self._shards[split].append(Shard(path.name, n, sha256_of(path), **extras))
        self._pending[split] = _Pending(pending.images)  # reuse the buffer: touching new pages is slow
        if self.continued:
            if self._ledger and (self.aside / self._ledger).is_file():
                sync_folder(self.aside / self._ledger)  # a file is synced as a folder is
            write_json(self.aside / JOURNAL, {"identity": self._begun, "splits": self._described()})

    def _write_labels(self, shard: Path, labels: np.ndarray, n: int) -> dict[str, str]:
        assert len(labels) == n, (len(labels), n)
        path = shard.with_name(f"{shard.stem}_labels.npy")
        with atomic_write(path) as file:
            np.save(file, labels, allow_pickle=False)
        return {"labels": path.name, "labels_sha256": sha256_of(path)}

    def _write_names(self, shard: Path, names: Sequence[str], n: int) -> dict[str, str]:
        assert len(names) == n, (len(names), n)
        path = shard.with_name(f"{shard.stem}_names.txt")
        write_text(path, "".join(f"{' '.join(name.splitlines())}\n" for name in names))
        return {"names": path.name, "names_sha256": sha256_of(path)}

    def _described(self) -> dict[str, Any]:
        return {
            split: {
                "count": sum(s.count for s in shards),
                "shards": [{k: v for k, v in asdict(s).items() if v != ""} for s in shards],
            }
            for split, shards in self._shards.items()
        }

    def _identity_of(self, provenance: Mapping[str, Any]) -> str:
        """Tells what is being made from all else."""
        said = [VERSION, self.dataset, asdict(self.layout), self._per_shard, provenance]
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()

    def _take_up(self) -> bool:
        """Continue the files of another process, if it was making the same dump and they are whole."""
        try:
            journal = read_json(self.aside / JOURNAL)
            if journal["identity"] != self._begun:
                return False
            shards = {split: [Shard.read(s) for s in entry["shards"]] for split, entry in journal["splits"].items()}
            checksums = [item for split in shards.values() for shard in split for item in shard.checksums.items()]
            if any(sha256_of(self.aside / file) != sha256 for file, sha256 in checksums):
                return False
        except (DataError, OSError, AttributeError, KeyError, TypeError):
            return False
        if self._still_true is not None and not self._still_true(self.aside):
            return False
        listed = {JOURNAL, self._ledger, *(file for file, _ in checksums)}
        for path in self.aside.iterdir():  # what was being written when the other process ended
            if path.name not in listed:
                path.unlink()
        self._shards = shards
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._held:
            try:
                if kind is None:
                    self._finish()
            finally:
                if not self.continued:
                    shutil.rmtree(self.aside, ignore_errors=True)

    def _finish(self) -> None:
        for split, pending in tuple(self._pending.items()):
            if pending.filled:
                self._flush(split)
        if not self._shards:
            raise DataError(f"{self.dataset}: no images were written.")
        description = self._description()
        for file in filter(None, (JOURNAL, self._ledger)):
            (self.aside / file).unlink(missing_ok=True)
        write_json(self.aside / DESCRIPTION, description)
        for path in self.aside.iterdir():
            share(path)
        if not self.replace:
            self._keep_other(description)
        self._put_in_place()

    def _keep_other(self, description: Mapping[str, Any]) -> None:
        """Move a dump that was made from something else out of the way."""
        if differing := differences(self.folder, description):
            place = free_place(self.folder)
            self.folder.rename(place)
            say(
                f"{self.folder}: there was a dump of that name, made from something else (other "
                f"{', '.join(differing)}); it is kept as {place.name}. With --replace it would be removed."
            )

    def _description(self) -> dict[str, Any]:
        layout = self.layout
        description = {
            "version": VERSION,
            "dataset": self.dataset,
            "image_shape": layout.image_shape,
            "n_levels": layout.n_levels,
            "dtype": layout.dtype,
            "encoding": layout.encoding,
            "splits": self._described(),
            "provenance": self.provenance,
            "content_hash": content_hash(self._shards),
        }
        said: dict[str, Any] = json.loads(json.dumps(finite(description)))  # as a reader will see it
        return {**said, "sha256": description_hash(said)}

    def _put_in_place(self) -> None:
        shutil.rmtree(self._old, ignore_errors=True)
        if self.folder.exists():  # the old dump stays until the new one is whole
            self.folder.rename(self._old)
        self.aside.rename(self.folder)
        sync_folder(self.folder.parent)
        shutil.rmtree(self._old, ignore_errors=True)
