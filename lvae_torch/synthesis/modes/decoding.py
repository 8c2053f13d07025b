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
from lvae_torch.models.contract import of_classes
from lvae_torch.models.sources import filled, given_latents, prior_sample
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

    @classmethod
    def open(cls, folder: Path, session: Session) -> "Encoded":
        """Open a folder of encodings.

        Raises:
            CfgError: if there are no encodings.
            DataError: if they were made with another model.
        """
        shapes = session.latent_shapes
        if not (folder / INDEX).is_file():
            raise CfgError(f"{folder}: no encodings there (no {INDEX}). Make them: --mode encoding.")
        index = read_json(folder / INDEX)
        session.check_belongs(index, folder / INDEX, "Encode with this one, or decode with that one.")
        if index.get("latent_shapes") != [list(shape) for shape in shapes]:
            raise DataError(f"{folder}: encodings of latents {index.get('latent_shapes')}, this model has {shapes}.")
        return cls(
            folder,
            [check_name(name, f"a part in {folder / INDEX}") for name in index["parts"]],
            Kept.of_channels(index.get("kept", [range(shape[0]) for shape in shapes]), shapes),
            _single_names(folder / NAMES),
        )

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
                if held is None or held.shape != needed:
                    raise DataError(f"{self.folder / name}: holds no z.{i} of shape {needed}; encode again.")
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
    indices, latents = arrays["indices"], encoded.latents(arrays, name, session)
    labels = _labels(session, encoded.folder / name, arrays)
    shown = []
    for first in range(0, len(indices), options.batch_size):
        numbers = indices[first : first + options.batch_size].tolist()
        z = [layer[first : first + options.batch_size].to(device) for layer in latents]
        seed_everything("decoding", options.seed, numbers[0])
        source = given_latents(z) if encoded.kept.everything else filled(z, keep, prior_sample(temperatures))
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
    return torch.from_numpy(labels).to(session.processes.device)


def _single_names(path: Path) -> dict[int, str] | None:
    if not path.is_file():
        return None
    lines = [line.split("\t", 1) for line in path.read_text("utf-8").splitlines()]
    return dict(zip((int(number) for number, _ in lines), single_names([name for _, name in lines]), strict=True))
