"""Checkpoints that are either whole or not there, written while training goes on.

checkpoints/step_00001000.pt      torch.save of tensors, numbers, text, lists and dicts
checkpoints/step_00001000.json    its size and sha256; without this manifest a checkpoint does not count
"""

import hashlib
import pickle
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor

from lvae_torch.errors import DataError
from lvae_torch.files import atomic_write, read_json, sha256_of, write_json

Which = Literal["last", "best"] | int


@dataclass(frozen=True)
class Manifest:
    """What is known of a whole checkpoint."""

    step: int
    size: int
    sha256: str
    is_best: bool


class CheckpointStore:
    """The checkpoints of one run: the last ``keep``, and the best."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep
        self._writer: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, state: dict[str, Any], is_best: bool = False) -> None:
        """Take a snapshot of ``state`` and write it in the background; waits for the write before this one.

        Raises:
            DataError: if that earlier write failed, for instance because the disk is full.
        """
        self.wait()
        snapshot = _on_cpu(state)
        self._writer = threading.Thread(target=self._write, args=(step, snapshot, is_best), name="checkpoint")
        self._writer.start()

    def wait(self) -> None:
        """Until everything saved is on disk.

        Raises:
            DataError: if it could not be written.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def load_newest(self, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest whole checkpoint; None if the run has none yet. Damaged ones are named and set aside.

        Raises:
            DataError: if there are checkpoints and all are damaged.
        """
        damaged = []
        for path in self._manifests():
            try:
                return self._load(path)
            except DataError as error:
                damaged.append(str(error))
                warn(f"{error} Set aside as *.damaged; trying the one before.")
                for file in (path, path.with_suffix(".pt")):
                    if file.exists():
                        file.rename(file.with_name(file.name + ".damaged"))
        if damaged:
            raise DataError(
                f"{self.folder}: every checkpoint is damaged. To begin anew, remove the run with ./reset.sh."
            )
        return None

    def load(self, which: Which) -> dict[str, Any]:
        """A checkpoint by step, or the last or best one; files are left as they are.

        Raises:
            DataError: if there is none such, or it is damaged.
        """
        manifests = self._manifests()
        wanted = manifests[:1]
        if which == "best":
            wanted = [path for path in manifests if _manifest(path).is_best][:1]
        elif isinstance(which, int):
            wanted = [path for path in manifests if path == self._manifest_path(which)]
        if not wanted:
            steps = ", ".join(str(int(path.stem[5:])) for path in manifests) or "none"
            raise DataError(f"{self.folder}: no checkpoint {which!r}; there are: {steps}.")
        return self._load(wanted[0])

    def _manifest_path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}.json"

    def _manifests(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step_*.json"), reverse=True)

    def _load(self, manifest_path: Path) -> dict[str, Any]:
        manifest, path = _manifest(manifest_path), manifest_path.with_suffix(".pt")
        if not path.is_file() or path.stat().st_size != manifest.size or sha256_of(path) != manifest.sha256:
            raise DataError(f"{path}: damaged (its bytes are not those that were written).")
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise DataError(f"{path}: holds something other than a checkpoint of this program.") from error
        return state

    def _write(self, step: int, state: dict[str, Any], is_best: bool) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            manifest_path = self._manifest_path(step)
            with atomic_write(manifest_path.with_suffix(".pt")) as file:
                hashing = _HashingFile(file)
                _save(state, hashing)
            manifest = Manifest(step, hashing.size, hashing.digest.hexdigest(), is_best)
            write_json(manifest_path, asdict(manifest))
            self._tidy()
        except BaseException as error:
            self._error = error

    def _tidy(self) -> None:
        """Delete what is no longer kept, now that the new checkpoint is on disk, and what kills left behind."""
        manifests = self._manifests()
        best = [path for path in manifests if _manifest(path).is_best][:1]
        kept = {path.stem for path in manifests[: self.keep] + best}
        for path in manifests:
            if path.stem not in kept:
                path.unlink()  # first the manifest: a checkpoint without one does not count
        for path in [*self.folder.glob("step_*.pt"), *self.folder.glob("step_*.tmp")]:
            if path.name.split(".")[0] not in kept or path.suffix == ".tmp":
                path.unlink()


def _save(state: dict[str, Any], file: "_HashingFile") -> None:
    try:
        torch.save(state, file)  # type: ignore[arg-type]  # write and flush are all it uses
    except RuntimeError as error:  # torch hides a full disk behind an error of its own
        if isinstance(cause := error.__context__, OSError):
            raise cause from error
        raise


def _manifest(path: Path) -> Manifest:
    try:
        return Manifest(**read_json(path))
    except TypeError as error:
        raise DataError(f"{path}: damaged (not a checkpoint's manifest).") from error


def _on_cpu(value: Any) -> Any:
    """A copy that later training cannot change."""
    match value:
        case Tensor():
            return value.detach().to("cpu", copy=True)
        case dict():
            return {key: _on_cpu(item) for key, item in value.items()}
        case list() | tuple():
            return [_on_cpu(item) for item in value]
        case _:
            return value


class _HashingFile:
    """A file that is hashed as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.digest.update(view)
        self.size += len(view)
        return self._file.write(view)

    def flush(self) -> None:
        self._file.flush()
