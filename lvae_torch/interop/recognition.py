"""What a file of another program is, by its content."""

import json
import pickle
import re
from argparse import Namespace
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from lvae_torch.errors import DataError
from lvae_torch.interop import spatial_lvae_names, vdvae
from lvae_torch.interop.flax_state import FlaxState, looks_like_state
from lvae_torch.interop.torch_files import MOST_UPDATES, are_tensors, is_legacy, is_torch_zip, read_torch_file

MOST_TEXT, MOST_LOG, MOST_LINE, MOST_FLAGS = 2**22, 2**30, 2**16, 2**20
"""Bytes of settings, of a log and of a line in it, and of pickled flags; read text takes many times its size."""
MOST_HPARAMS = 1000
KNOWN = {
    b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"\x1f\x8b": "a gzip archive; unpack it first",
    b"%PDF": "a PDF", b"\x89HDF": "an HDF5 file", b"\x93NUMPY": "a NumPy array", b"<": "a web page, perhaps of a "
    "download that failed", b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself",
}  # fmt: skip


class UnknownFileError(DataError):
    """A file of no program that we know: in a folder, one to pass over."""


class Kind(Enum):
    """Each with what a user is told."""

    VDVAE_RAW = "raw weights of openai/vdvae"
    VDVAE_AVERAGED = "averaged weights (EMA) of openai/vdvae"
    VDVAE_OPTIMIZER = "optimizer state of openai/vdvae"
    VDVAE_LOG = "log with hyper-parameters of openai/vdvae"
    VDVAE_HPARAMS = "hyper-parameters of openai/vdvae"
    EFFICIENT_TORCH = "checkpoint of Efficient-VDVAE's PyTorch half"
    EFFICIENT_JAX = "checkpoint of Efficient-VDVAE's JAX half"
    EFFICIENT_CFG = "settings of Efficient-VDVAE"
    LADDER_WEIGHTS = "weights of ladder-vae-pytorch"
    LADDER_FLAGS = "settings of ladder-vae-pytorch"


@dataclass(frozen=True)
class Found:
    """A file, what it is, and what was read of it."""

    path: Path
    kind: Kind
    content: Any = field(repr=False)

    @property
    def line(self) -> str:
        return f"{self.path.name}: {self.kind.value}"


def recognise(path: Path) -> Found:
    """The file's kind, with its content: tensors stay on disk where the format allows it.

    Raises:
        DataError: if it is missing, a folder, damaged, dangerous, or of no program that we know.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file or folder.") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder; a file is needed here.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    if not head:
        raise DataError(f"{path}: the file is empty; fetch it again.")
    if is_torch_zip(path) or is_legacy(head):
        return _of_torch(path, read_torch_file(path))
    if looks_like_state(head):
        return _of_flax(path)
    if head[:1] == b"\x80":
        return Found(path, Kind.LADDER_FLAGS, _flags(path))
    if head.startswith(b"PK"):
        raise DataError(f"{path}: refused: it is a damaged zip file, or holds no file of a program that we know.")
    return _of_text(path, head)


def _of_torch(path: Path, value: Any) -> Found:
    if isinstance(value, dict) and {"model_state_dict", "ema_model_state_dict", "global_step"} <= value.keys():
        return Found(path, Kind.EFFICIENT_TORCH, value)
    if isinstance(value, dict) and {"state", "param_groups"} <= value.keys():
        return Found(path, Kind.VDVAE_OPTIMIZER, value)
    if are_tensors(value):
        if all(vdvae.our_name(name) is not None for name in value):
            is_wrapped = all(name.startswith(vdvae.WRAPPED) for name in value)
            return Found(path, Kind.VDVAE_RAW if is_wrapped else Kind.VDVAE_AVERAGED, value)
        if spatial_lvae_names.is_state(value):
            return Found(path, Kind.LADDER_WEIGHTS, value)
    names = ", ".join(map(str, list(value)[:3])) if isinstance(value, dict) else type(value).__name__
    raise UnknownFileError(
        f"{path}: a PyTorch file, but no checkpoint of openai/vdvae, Efficient-VDVAE or ladder-vae-pytorch; it holds "
        f"{names or 'nothing'}{' ...' if isinstance(value, dict) and len(value) > 3 else ''}."
    )


def _of_flax(path: Path) -> Found:
    state = FlaxState(path)
    if not (state.below("ema_params") or state.below("params")):
        raise UnknownFileError(f"{path}: a state of flax, but without params or ema_params; none of Efficient-VDVAE.")
    return Found(path, Kind.EFFICIENT_JAX, state)


class _Flags(pickle.Unpickler):
    """Reads an ``argparse.Namespace`` of plain values, and refuses to make anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("argparse", "Namespace"):
            return Namespace
        raise UnknownFileError(f"refused: it asks for {module}.{name}, which would run code. Nothing in it was run.")

    def persistent_load(self, pid: Any) -> Any:
        raise UnknownFileError("refused: it refers to objects outside of itself.")


def _flags(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MOST_FLAGS:
        raise UnknownFileError(
            f"{path}: refused: a pickle of more than {MOST_FLAGS:,} bytes; settings are far smaller."
        )
    try:
        with open(path, "rb") as file:
            value = _Flags(file).load()
    except UnknownFileError as error:
        raise UnknownFileError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"{path}: refused: a damaged pickle ({type(error).__name__}).") from error
    flags = dict(vars(value)) if isinstance(value, Namespace) else {}
    if "z_dims" not in flags:
        raise UnknownFileError(f"{path}: a pickle, but not the settings of ladder-vae-pytorch.")
    return flags


def _of_text(path: Path, head: bytes) -> Found:
    told = next((what for start, what in KNOWN.items() if head.startswith(start)), None)
    if told is None and path.stat().st_size <= MOST_TEXT:
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            text = ""
        if text.lstrip().startswith("{") and (hparams := _json_of_hparams(text)) is not None:
            return Found(path, Kind.VDVAE_HPARAMS, hparams)
        if re.search(r"(?m)^\s*up_strides\s*=", text):
            return Found(path, Kind.EFFICIENT_CFG, text)
    if head.startswith(b"{") and path.stat().st_size <= MOST_LOG and "enc_blocks" in (log := vdvae_log(path)).hparams:
        return Found(path, Kind.VDVAE_LOG, log)
    raise UnknownFileError(
        f"{path}: {told or 'bytes that we do not know'}; no file of openai/vdvae, Efficient-VDVAE or "
        "ladder-vae-pytorch."
    )


def _json_of_hparams(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "enc_blocks" in value else None


@dataclass
class Log:
    """What a log.jsonl of openai/vdvae says."""

    hparams: dict[str, Any] = field(default_factory=dict)
    last_step: int = 0
    """Of its training lines; an ``iter-N`` checkpoint may be later."""


def vdvae_log(path: Path) -> Log:
    """Read line by line; lines that are damaged, too long or say other things are passed over."""
    log = Log()
    with open(path, "rb") as file:
        while line := file.readline(MOST_LINE):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not isinstance(entry, dict):
                continue
            if entry.get("type") == "hparam" and isinstance(entry.get("key"), str) and len(log.hparams) < MOST_HPARAMS:
                log.hparams[entry["key"]] = entry.get("value")
            elif entry.get("type") == "train_loss" and type(entry.get("step")) is int and entry["step"] <= MOST_UPDATES:
                log.last_step = max(log.last_step, entry["step"])
    return log
