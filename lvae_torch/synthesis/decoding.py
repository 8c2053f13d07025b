"""Decoding: encodings back to images."""

from pathlib import Path

import numpy as np
import torch

from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import check_name, read_json
from lvae_torch.models.sources import given_latents
from lvae_torch.reporting.grids import save_png, to_uint8
from lvae_torch.seeding import seed_everything
from lvae_torch.synthesis.parts import read_part
from lvae_torch.synthesis.picture_parts import first_images_grid
from lvae_torch.synthesis.session import Session, n_rounds
from lvae_torch.synthesis.singles import save_singles


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """The images of a folder of encodings, uint8 (n, H, W, C) in as many parts, and the first of them as a grid."""
    options = session.options
    source = Path(options.source) if options.source else session.out.parent / "encoding"
    names = _checked_parts(source, session)
    parts = session.parts(0, "source", "draw", "batch_size")  # the encodings may have changed: all is made anew
    for j, _ in n_rounds(session, len(names), 1):
        arrays = read_part(source / names[j])
        images = _decode(session, arrays, source / names[j])
        parts.write(j, {"images": images, "indices": arrays["indices"]})
    session.processes.barrier()
    n = sum(len(parts.read(j)["images"]) for j in range(len(names))) if session.processes.is_main else 0
    if session.processes.is_main:
        save_png(session.out / "decoded.png", first_images_grid(parts, n, options.columns))
    return {"n_images": n, "source": str(source), "draw": options.draw}


def _decode(session: Session, arrays: dict[str, np.ndarray], path: Path) -> np.ndarray:
    options, device = session.options, session.processes.device
    latents = []
    for i, shape in enumerate(session.model.latent_shapes()):
        z = arrays.get(f"z.{i}")
        if z is None or z.shape[1:] != tuple(shape) or len(z) != len(arrays.get("indices", ())):
            raise DataError(f"{path}: holds no z.{i} of shape (n, {', '.join(map(str, shape))}); encode with this run.")
        latents.append(torch.from_numpy(z).to(device))
    shown = []
    for first in range(0, len(latents[0]), options.batch_size):
        seed_everything("decoding", options.seed, path.name, first)
        batch = [z[first : first + options.batch_size] for z in latents]
        out = session.model(None, given_latents(batch), n=len(batch[0]))
        picture = session.picture_of(out.likelihood)
        shown.append(to_uint8(picture))
        if options.save_singles:
            numbers = arrays["indices"][first : first + options.batch_size].tolist()
            save_singles(session.out / "singles", numbers, picture)
    return np.concatenate(shown)


def _checked_parts(source: Path, session: Session) -> list[str]:
    """The part files that the index names."""
    if not (source / "index.json").is_file():
        raise CfgError(f"{source}: no encodings there (no index.json). Make them: --mode encoding.")
    index = read_json(source / "index.json")
    needed = [list(shape) for shape in session.model.latent_shapes()]
    if index.get("latent_shapes") != needed:
        raise DataError(f"{source}: encodings of latents {index.get('latent_shapes')}, this model has {needed}.")
    return [check_name(name, f"a part in {source / 'index.json'}") for name in index["parts"]]
