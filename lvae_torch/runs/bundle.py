"""A bundle: one folder with a trained model and everything needed to use it, to copy or to put on a hub.

model.safetensors     the weights; the metadata hold their step, data, versions and checksum
hparams.cfg           the settings of the run, with a checksum
README.md             a model card for people
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lvae_torch.errors import DataError
from lvae_torch.files import atomic_write, make_folder, write_text
from lvae_torch.runs.checkpoint import TrainedOn, Weights

WEIGHTS, SETTINGS, CARD = "model.safetensors", "hparams.cfg", "README.md"
FORMAT = "lvae_torch bundle 1"


@dataclass(frozen=True)
class Bundle:
    """A trained model apart from its run."""

    weights: Weights
    step: int
    is_averaged: bool
    trained_on: TrainedOn
    versions: Mapping[str, str]

    def rounded(self) -> "Bundle":
        """The same with matrices and kernels in bfloat16: half of the file.

        Vectors stay as they are: they are few bytes, and batch norm divides by some of them.
        """
        weights = {name: tensor.bfloat16() if _is_rounded(tensor) else tensor for name, tensor in self.weights.items()}
        return replace(self, weights=weights)

    def write(self, folder: Path, settings: str, card: str) -> None:
        """Write the three files; ``settings`` is sealed cfg text.

        Raises:
            DataError: if the folder is not empty, or cannot be written.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder}: there is something already; name a new folder.")
        make_folder(folder)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.weights.items()}
        about = {
            "format": FORMAT,
            "step": str(self.step),
            "averaged": json.dumps(self.is_averaged),
            "trained_on": json.dumps(self.trained_on.entries()),
            "versions": json.dumps(dict(self.versions)),
            "sha256": _checksum(weights),
        }
        write_text(folder / SETTINGS, settings)
        write_text(folder / CARD, card)
        with atomic_write(folder / WEIGHTS) as file:
            file.write(save(weights, about))

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        """Read a bundle and compare its weights with their checksum; none is left in bfloat16. No code in it is run.

        Raises:
            DataError: naming the file that is missing, damaged or not a bundle's.
        """
        path = folder / WEIGHTS
        for needed in (path, folder / SETTINGS):
            if not needed.is_file():
                raise DataError(f"{folder}: no whole bundle, {needed.name} is missing. Copy or download it again.")
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
        except (SafetensorError, OSError, ValueError) as error:
            raise DataError(f"{path}: damaged, or no safetensors file ({error}). Copy or download it again.") from error
        if about.get("format") != FORMAT:
            raise DataError(f"{path}: no weights of a bundle of this program; lvae export writes them.")
        if about.get("sha256") != _checksum(weights):
            raise DataError(f"{path}: damaged (its weights have another checksum). Copy or download it again.")
        try:
            on = json.loads(about["trained_on"])
            versions, is_averaged = json.loads(about["versions"]), bool(json.loads(about["averaged"]))
            weights = {name: t.float() if t.dtype == torch.bfloat16 else t for name, t in weights.items()}
            return cls(weights, int(about["step"]), is_averaged, TrainedOn.of_entries(on), versions)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: its metadata are no bundle's ({error!r}). Copy or download it again.") from error


def is_bundle(folder: Path) -> bool:
    """Whether ``folder`` is meant as a bundle: it has weights, or settings and card but no checkpoints of a run."""
    return (folder / WEIGHTS).is_file() or (
        (folder / SETTINGS).is_file() and (folder / CARD).is_file() and not (folder / "checkpoints").is_dir()
    )


def _is_rounded(tensor: Tensor) -> bool:
    return tensor.ndim > 1 and tensor.dtype == torch.float32


def _checksum(weights: Weights) -> str:
    """sha256 of all names, dtypes, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
