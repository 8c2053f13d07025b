"""Decoding: turns encodings back into images. Variates that were not stored come from the prior at ``temperature``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import check_name, read_json
from lvae_torch.models.contract import Shape, of_classes
from lvae_torch.models.sources import filled, given_latents
from lvae_torch.synthesis.codes import code_grid
from lvae_torch.synthesis.modes.encoding import INDEX, LABELS, NAMES
from lvae_torch.synthesis.parts import Arrays, read_part
from lvae_torch.synthesis.session import Session, n_rounds
from lvae_torch.synthesis.showing import save_first, stored
from lvae_torch.synthesis.singles import SINGLES, save_singles, single_names
from lvae_torch.synthesis.temperatures import per_layer
from lvae_torch.synthesis.variates import Kept


@dataclass(frozen=True)
class Encoded:
    """A folder of encodings of this session's model."""

    folder: Path
    parts: Sequence[str]
    kept: Kept
    single_names: Mapping[int, str] | None
    """Name of the picture of each image; None if pictures are named by number."""
    n_codes: int | None
    """Of a model whose latents are codes."""

    @classmethod
    def open(cls, folder: Path, session: Session) -> "Encoded":
        """Open a folder of encodings.

        Raises:
            CfgError: if there are no encodings.
            DataError: if they were made with another model, or the index or the names are none.
        """
        shapes, path = session.latent_shapes, folder / INDEX
        if not path.is_file():
            raise CfgError(f"{folder}: no encodings there (no {INDEX}). Make them: --mode encoding.")
        index = read_json(path)
        if not isinstance(index, dict):
            raise DataError(f"{path}: holds no JSON object. Write it as --mode encoding does.")
        session.check_belongs(index, path, "Encode with this one, or decode with that one.")
        if index.get("latent_shapes") != [list(shape) for shape in shapes]:
            raise DataError(f"{folder}: encodings of latents {index.get('latent_shapes')}, this model has {shapes}.")
        parts, codes = index.get("parts"), code_grid(session.model)
        if not (isinstance(parts, list) and parts and all(isinstance(name, str) for name in parts)):
            raise DataError(f"{path}: parts is {parts!r:.60}; give the list of the files' names, at least one.")
        return cls(
            folder,
            [check_name(name, f"a part in {path}") for name in parts],
            _kept(path, index.get("kept"), shapes),
            _single_names(folder / NAMES),
            codes and codes[1],
        )

    def indices(self, arrays: Arrays, name: str, need_names: bool) -> np.ndarray:
        """Numbers of the images of a part, (n,).

        Raises:
            DataError: naming the file, if there are none, or one has no name where they are needed.
        """
        indices = arrays.get("indices")
        if indices is None or indices.ndim != 1 or not len(indices) or indices.dtype.kind not in "iu":
            raise DataError(f"{self.folder / name}: needs indices, whole numbers (n,) of its images, at least one.")
        named = self.single_names if need_names else None
        if named is not None and (unnamed := set(indices.tolist()) - set(named)):
            raise DataError(f"{self.folder / NAMES}: no name for image {min(unnamed)} of {name}; add a line for it.")
        return indices

    def latents(self, arrays: Arrays, name: str, session: Session) -> list[Tensor]:
        """z of each layer of a part, (n, Z, ...), with zeros for variates that were not stored.

        Raises:
            DataError: naming the part, if it does not match the index.
        """
        latents = []
        layers = zip(self.kept.channels, session.latent_shapes, strict=True)
        for i, (channels, shape) in enumerate(layers):
            z = np.zeros((len(arrays["indices"]), *shape), dtype=np.float32)
            if channels:
                held = arrays.get(f"z.{i}")
                needed = (len(z), len(channels), *shape[1:])
                if held is None or held.shape != needed or held.dtype.kind not in "fiu":
                    raise DataError(f"{self.folder / name}: holds no numbers z.{i} of shape {needed}; encode again.")
                if self.n_codes is not None and not ((held >= 0) & (held < self.n_codes)).all():
                    last = self.n_codes - 1
                    raise DataError(f"{self.folder / name}: z.{i} holds other codes than 0 to {last}, the model's.")
                z[:, channels] = held
            latents.append(torch.from_numpy(z))
        return latents


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """Write one part of images, uint8 (n, H, W, C), per part of encodings, and a grid of the first images."""
    options = session.options
    encoded = Encoded.open(Path(options.source) if options.source else session.out.parent / "encoding", session)
    temperatures = per_layer(options.temperature, len(session.latent_shapes))
    parts = session.parts(0, "source")  # the encodings may have changed, so make all parts anew
    for j, _ in n_rounds(session, len(encoded.parts), 1):
        parts.write(j, _decode(session, encoded, encoded.parts[j], temperatures))
    session.processes.barrier()
    said: dict[str, Any] = {"source": str(encoded.folder), "draw": options.draw, "temperatures": list(temperatures)}
    if not session.processes.is_main:
        return said
    n = sum(len(parts.read(j)["indices"]) for j in range(len(encoded.parts)))
    save_first(session.out / "decoded.png", parts, n, options.columns)
    return {"n_images": n, **said}


def _decode(session: Session, encoded: Encoded, name: str, temperatures: tuple[float, ...]) -> Arrays:
    options, device = session.options, session.processes.device
    keep = encoded.kept.broadcastable(session.latent_shapes, device)
    arrays = read_part(encoded.folder / name)
    indices, latents = encoded.indices(arrays, name, options.save_singles), encoded.latents(arrays, name, session)
    labels = _labels(session, encoded.folder / name, arrays)
    shown = []
    for first in range(0, len(indices), options.batch_size):
        numbers = indices[first : first + options.batch_size].tolist()
        z = [layer[first : first + options.batch_size].to(device) for layer in latents]
        seed_everything("decoding", options.seed, numbers[0])
        source = given_latents(z) if encoded.kept.everything else filled(z, keep, temperatures)
        told = None if labels is None else labels[first : first + options.batch_size]
        out = session.model(None, of_classes(source, told), n=len(numbers))
        picture = session.picture_of(out.likelihood, numbers[0])
        shown.append(stored(picture))
        if options.save_singles:
            save_singles(session.out / SINGLES, numbers, picture, encoded.single_names)
    return {"indices": indices, **{name: np.concatenate([piece[name] for piece in shown]) for name in shown[0]}}


def _labels(session: Session, path: Path, arrays: Arrays) -> Tensor | None:
    """The classes of the encoded images, (n,); None for an unconditional model.

    Raises:
        DataError: if a class-conditional model's encodings lack them.
    """
    if not session.classes:
        return None
    labels = arrays.get(LABELS)
    if (
        labels is None
        or labels.shape != arrays["indices"].shape
        or not np.isin(labels, range(len(session.classes))).all()
    ):
        raise DataError(f"{path}: holds no class for each image; encode again.")
    return torch.from_numpy(labels.astype(np.int64)).to(session.processes.device)


def _kept(path: Path, given: object, shapes: Sequence[Shape]) -> Kept:
    """The channels that an index says were stored; all if it says nothing.

    Raises:
        DataError: naming the index, if they are not those of this model's layers.
    """
    if given is None:
        return Kept.of_channels([range(shape[0]) for shape in shapes], shapes)
    if not isinstance(given, list) or len(given) != len(shapes):
        raise DataError(f"{path}: kept is {given!r:.60}; give a list of channels for each of {len(shapes)} layers.")
    for i, (channels, shape) in enumerate(zip(given, shapes, strict=True)):
        if not isinstance(channels, list) or channels != [c for c in range(shape[0]) if c in channels]:
            wanted = f"numbers from 0 to {shape[0] - 1}, ascending"
            raise DataError(f"{path}: kept is {channels!r:.60} for layer {i}; give {wanted}.")
    return Kept.of_channels(given, shapes)


def _single_names(path: Path) -> dict[int, str] | None:
    """Names of the pictures, by number; None if there is no such file.

    Raises:
        DataError: naming the line, if it is no number and name.
    """
    if not path.is_file():
        return None
    try:
        lines = path.read_text("utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}).") from error
    files: dict[int, str] = {}
    for k, line in enumerate(lines, 1):
        number, *names = line.split("\t", 2)
        if not (number.isdecimal() and names) or int(number) in files:
            told = "an image's number, which no other line has, a tab, and a name"
            raise DataError(f"{path}: line {k} is {line!r:.60}; expected {told}.")
        files[int(number)] = names[0] if len(names) == 1 else f"{names[1]}.png"
    return dict(zip(files, single_names(list(files.values())), strict=True))
