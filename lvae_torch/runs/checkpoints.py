"""Stores checkpoints as whole files or not at all; a thread writes them while training goes on.

checkpoints/step_00001000.pt      torch.save of tensors, numbers, text, lists and dicts
checkpoints/step_00001000.json    its size and sha256; without this manifest a checkpoint does not count
"""

import re
import threading
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

from lvae_torch.errors import DataError
from lvae_torch.files import atomic_write, make_folder, read_json, sha256_of, write_json
from lvae_torch.runs.state_file import HashingFile, bytes_of, not_finite, on_cpu, read_safely, save_state

Which = Literal["last", "best", "good"] | int

OURS = re.compile(r"step_(\d{8,})(\.again)?(\.json|\.pt)(\.tmp)?")


@dataclass(frozen=True)
class Manifest:
    """Facts about a whole checkpoint."""

    step: int
    size: int
    sha256: str
    is_best: bool
    again: bool = False
    """The file may still be step_*.again.pt: a step saved twice leaves its file alone until the new one counts."""
    is_good: bool = True
    """Whether training went well until it was saved, so that one can go back to it; older versions did not ask."""

    @property
    def files(self) -> tuple[str, ...]:
        """Where the checkpoint may lie: under its own name, or under that which it was written as."""
        names = f"step_{self.step:08d}.pt", f"step_{self.step:08d}.again.pt"
        return names if self.again else names[:1]


class CheckpointStore:
    """The checkpoints of one run: the last ``keep``, the best, and the last good one."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep
        self._writer: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, state: dict[str, Any], is_best: bool = False, is_good: bool = True) -> None:
        """Take a snapshot of ``state`` and write it in the background, after waiting for the previous write.


        Loading returns tuples as lists, and all dicts as plain ones. A state that is not finite is never good.

        Raises:
            DataError: if the previous write failed, for instance because the disk is full.
            TypeError: for a value that cannot be loaded without running code.
        """
        self.wait()
        snapshot = on_cpu(state, "state")
        self._writer = threading.Thread(target=self._write, args=(step, snapshot, is_best, is_good), name="checkpoint")
        self._writer.start()

    def write(self, step: int, state: dict[str, Any]) -> None:
        """Write ``state``, which nobody changes meanwhile, at once and without a copy.

        Raises:
            DataError: if it could not be written.
        """
        self.wait()
        if name := not_finite(state):
            raise DataError(f"{self.folder}: {name} is not finite; such a checkpoint could not be loaded again.")
        self._write(step, state, is_best=False, is_good=True)
        self.wait()

    def wait(self) -> None:
        """Wait until everything saved is on disk.

        Raises:
            DataError: if the write failed.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def load_newest(self, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """Load the newest whole checkpoint; None if the run has none yet.

        Newer, damaged ones are reported, and renamed to ``*.damaged`` once a whole one is found.

        Raises:
            DataError: if all checkpoints are damaged; they are left as they are.
        """
        damaged: list[Path] = []
        for path in self._manifests():
            try:
                state = self._load(path)
            except DataError as error:
                warn(f"{error} Trying the one before.")
                damaged.append(path)
            else:
                self._rename({_step(path) for path in damaged}, ".damaged")
                return state
        if damaged:
            raise DataError(
                f"{self.folder}: every checkpoint is damaged, from step {_step(damaged[-1])} to {_step(damaged[0])}. "
                "Restore them from a copy, or remove the run with ./reset.sh to begin anew."
            )
        return None

    def load(self, which: Which) -> dict[str, Any]:
        """Load a checkpoint by step, or the last, best or last good one, without changing any file.

        Raises:
            DataError: if it does not exist or is damaged.
        """
        manifests = self._manifests()
        match which:
            case "last":
                wanted = manifests[:1]
            case "best" | "good":
                known = [(path, _manifest_or_none(path)) for path in manifests]
                wanted = [path for path, m in known if m is not None and (m.is_best if which == "best" else m.is_good)]
                # An unreadable one may be the one; then loading it reports the damage.
                wanted = wanted[:1] or [path for path, manifest in known if manifest is None][:1]
            case step:
                wanted = [path for path in manifests if _step(path) == step]
        if not wanted:
            steps = ", ".join(str(_step(path)) for path in manifests) or "none"
            lone = sorted(path for path in self._ours() if path.suffix == ".pt" and "." not in path.stem)
            if lone and not manifests:
                raise DataError(
                    f"{self.folder}: no checkpoint has its manifest (.json), so none counts as whole. Copy the "
                    f"manifests too, or name the file itself: {lone[-1]}"
                )
            raise DataError(f"{self.folder}: no checkpoint {which!r}; there are: {steps}.")
        try:
            return self._load(wanted[0])
        except DataError as error:
            others = ", ".join(str(_step(path)) for path in manifests if path != wanted[0]) or "none"
            raise DataError(
                f"{error} Use another one ({others}), or repeat the training command: the newest whole one goes on."
            ) from error

    def last_good(self) -> int | None:
        """Step of the newest good checkpoint; None if there is none."""
        known = (_manifest_or_none(path) for path in self._manifests())
        return next((manifest.step for manifest in known if manifest is not None and manifest.is_good), None)

    def is_good(self, step: int) -> bool:
        """Whether the checkpoint of a step was saved as a good one; true where nothing says so."""
        manifest = _manifest_or_none(self._manifest_path(step))
        return manifest is None or manifest.is_good

    def set_aside(self, after: int) -> list[int]:
        """Rename the checkpoints after a step to ``*.aside``, so that none of them counts; their steps, newest first.

        Where the name is taken they become ``*.aside2`` and so on.

        Raises:
            DataError: if the folder cannot be written.
        """
        steps = [_step(path) for path in self._manifests() if _step(path) > after]
        self._rename(set(steps), ".aside")
        return steps

    def digest(self, step: int) -> str:
        """The sha256 of a checkpoint from its manifest; empty if it has no manifest."""
        manifest = _manifest_or_none(self._manifest_path(step))
        return "" if manifest is None else manifest.sha256

    def _manifest_path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}.json"

    def _ours(self) -> list[Path]:
        """The files that this store wrote or began to write; it leaves other files in the folder alone."""
        return [path for path in self.folder.glob("step_*") if OURS.fullmatch(path.name)]

    def _manifests(self) -> list[Path]:
        """All manifests, newest first."""
        return sorted((path for path in self._ours() if path.suffix == ".json"), key=_step, reverse=True)

    def _load(self, manifest_path: Path) -> dict[str, Any]:
        manifest = _manifest(manifest_path)
        paths = [self.folder / name for name in manifest.files]
        path = next((path for path in paths[1:] if not _damage(path, manifest)), paths[0])
        if damage := _damage(path, manifest):
            raise DataError(f"{path}: damaged ({damage}).")
        state = read_safely(path)
        if name := not_finite(state):
            raise DataError(f"{path}: damaged ({name} is not finite).")
        return state

    def _rename(self, steps: Collection[int], suffix: str) -> None:
        """Add the suffix to the files of these steps, numbered where an earlier course of the run left some."""
        free = {step: self._free(step, suffix) for step in steps}
        # The manifest first (.json < .pt): a checkpoint without one does not count.
        for path in sorted(self._ours(), key=lambda path: path.suffix):
            if (step := _step(path)) in free:
                path.rename(path.with_name(path.name + free[step]))

    def _free(self, step: int, suffix: str) -> str:
        """The suffix, or the first of SUFFIX2, SUFFIX3, ... that no file of the step has."""
        numbered = (f"{suffix}{n}" for n in count(2))
        return next(s for s in chain([suffix], numbered) if not any(self.folder.glob(f"step_{step:08d}.*{s}")))

    def _write(self, step: int, state: dict[str, Any], is_best: bool, is_good: bool) -> None:
        try:
            make_folder(self.folder)
            manifest = self._write_state(step, state, is_best, is_good and not not_finite(state))
            write_json(self._manifest_path(step), asdict(manifest))
            if manifest.again:
                (self.folder / manifest.files[-1]).replace(self.folder / manifest.files[0])
            self._tidy()
        except DataError as error:
            self._error = DataError(f"{error} A checkpoint of this run takes {bytes_of(state) / 2**20:.1f} MiB.")
        except OSError as error:
            self._error = DataError(f"{self.folder}: cannot be written ({error.strerror}).")
        except BaseException as error:
            self._error = error

    def _write_state(self, step: int, state: dict[str, Any], is_best: bool, is_good: bool) -> Manifest:
        again = self._manifest_path(step).is_file()
        with atomic_write(self.folder / Manifest(step, 0, "", is_best, again).files[-1]) as file:
            hashing = HashingFile(file)
            save_state(state, hashing)
        return Manifest(step, hashing.size, hashing.digest.hexdigest(), is_best, again, is_good)

    def _tidy(self) -> None:
        """Delete old checkpoints, now that the new one is on disk, and remains of killed writes."""
        known = [(path, _manifest_or_none(path)) for path in self._manifests()]
        whole = [manifest for _, manifest in known if manifest is not None]
        best = [manifest for manifest in whole if manifest.is_best][:1]
        good = [manifest for manifest in whole if manifest.is_good][:1]
        kept = {manifest.step for manifest in whole[: self.keep] + best + good}
        unreadable = {_step(path) for path, manifest in known if manifest is None}  # for load_newest to name
        files = {name for manifest in whole if manifest.step in kept for name in manifest.files}
        # The manifest first (.json < .pt): a checkpoint without one does not count.
        for path in sorted(self._ours(), key=lambda path: path.suffix):
            is_kept = _step(path) in kept if path.suffix == ".json" else path.name in files
            if not is_kept and _step(path) not in unreadable:
                path.unlink()


def _step(path: Path) -> int:
    match = OURS.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


def _manifest(path: Path) -> Manifest:
    """Read a manifest; raises DataError if it does not belong to the step in its name."""
    try:
        manifest = Manifest(**read_json(path))
    except TypeError as error:
        raise DataError(f"{path}: damaged (not a checkpoint's manifest).") from error
    if manifest.step != _step(path):
        raise DataError(f"{path}: damaged (it belongs to step {manifest.step}).")
    return manifest


def _manifest_or_none(path: Path) -> Manifest | None:
    try:
        return _manifest(path)
    except DataError:
        return None


def _damage(path: Path, manifest: Manifest) -> str:
    """What is wrong with the file; empty if it matches its manifest."""
    try:
        size = path.stat().st_size
        if size != manifest.size:
            return f"{size:,} bytes instead of {manifest.size:,}"
        return "" if sha256_of(path) == manifest.sha256 else "its sha256 is not that of what was written"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
