"""Results in parts: one rank writes each part as a whole, so an interrupted mode continues where it stopped."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import ZIP_STORED, BadZipFile

import numpy as np

from lvae_torch.errors import DataError
from lvae_torch.files import BROKEN_ARRAY, atomic_write

Format = Literal["safetensors", "npz"]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Parts:
    """Numbered files of named arrays in one folder; each file records its fingerprint."""

    folder: Path
    fingerprint: str
    format: Format = "npz"

    def path(self, j: int) -> Path:
        return self.folder / f"part_{j:05d}.{self.format}"

    def prepare(self, count: int) -> None:
        """Remove parts of other results; one rank calls this before any rank writes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = {self.path(j) for j in range(count) if self.is_done(j)}
        for path in self.folder.glob("part_*"):
            if path not in wanted:
                path.unlink()

    def is_done(self, j: int) -> bool:
        """Whether part j exists, is whole and has this fingerprint."""
        try:
            return self.path(j).is_file() and self._fingerprint_of(j) == self.fingerprint
        except DataError:
            return False

    def write(self, j: int, arrays: Arrays) -> None:
        """Write part j, atomically."""
        with atomic_write(self.path(j)) as file:
            if self.format == "npz":
                np.savez(file, allow_pickle=False, fingerprint=np.array(self.fingerprint), **arrays)
            else:
                from safetensors.numpy import save

                contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
                file.write(save(contiguous, metadata={"fingerprint": self.fingerprint}))

    def read(self, j: int) -> dict[str, np.ndarray]:
        """The arrays of part j.

        Raises:
            DataError: naming the file, if it is missing, damaged or belongs to other results.
        """
        arrays = read_part(self.path(j), keep_fingerprint=True)
        told = arrays.pop("fingerprint", None) if self.format == "npz" else self._fingerprint_of(j)
        if str(told) != self.fingerprint:
            raise DataError(f"{self.path(j)}: belongs to other results. Run the mode again.")
        return arrays

    def _fingerprint_of(self, j: int) -> str:
        path = self.path(j)
        if self.format == "npz":
            return str(read_part(path, keep_fingerprint=True)["fingerprint"])
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                return str((file.metadata() or {}).get("fingerprint"))
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path}: damaged ({error}).") from error


def read_part(path: Path, keep_fingerprint: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a part file, ``.npz`` or ``.safetensors``; no code in the file is run.

    Raises:
        DataError: naming the file, if it is missing or damaged.
    """
    try:
        if path.suffix == ".npz":
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                if any(member.compress_type != ZIP_STORED for member in file.zip.infolist()):
                    raise ValueError("its arrays are compressed, as this program writes none")
                arrays = {name: file[name] for name in file.files}
            return arrays if keep_fingerprint else {k: v for k, v in arrays.items() if k != "fingerprint"}
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    except (*BROKEN_ARRAY, KeyError, BadZipFile, AttributeError) as error:
        raise DataError(f"{path}: missing or damaged ({error}). Run the mode that writes it again.") from error
