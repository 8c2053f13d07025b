"""Encoding: latents and posteriors of a whole split, in files that NumPy opens.

arrays = numpy.load("part_00000.npz")          # or safetensors.numpy.load_file("part_00000.safetensors")
arrays["z.0"]                                  # top layer: (n, Z, h, w); also posterior_mean.0, posterior_log_std.0
arrays["indices"]                              # which images of the split these are
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lvae_torch.files import write_json
from lvae_torch.models.contract import Latent
from lvae_torch.models.sources import posterior_sample
from lvae_torch.synthesis.session import Session


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """One part per ``shard_size`` images; finished parts are kept when the mode is repeated."""
    options = session.options
    count = session.n_batches(options.shard_size)
    parts = session.parts(count, "shard_size", "batch_size", file_format=options.shard_format)
    for j, indices, x in session.batches(options.shard_size, "encoding"):
        if not parts.is_done(j):
            pieces = [_arrays(session.model(piece, posterior_sample).latents) for piece in x.split(options.batch_size)]
            arrays = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
            parts.write(j, {"indices": indices, **arrays})
    session.processes.barrier()
    summary: dict[str, object] = {
        "n_images": len(session.images.indices),
        "latent_shapes": [list(shape) for shape in session.model.latent_shapes()],
        "arrays": "z.i, posterior_mean.i, posterior_log_std.i (float32; i = 0 is the top layer), indices",
        "parts": [parts.path(j).name for j in range(count)],
    }
    if session.processes.is_main:
        write_json(session.out / "index.json", {**session.identity, **summary})
    return summary


def _arrays(latents: tuple[Latent, ...]) -> Mapping[str, np.ndarray]:
    arrays = {}
    for i, latent in enumerate(latents):
        arrays[f"z.{i}"] = _numpy(latent.z)
        arrays[f"posterior_mean.{i}"] = _numpy(latent.encoded.mean)
        arrays[f"posterior_log_std.{i}"] = _numpy(latent.encoded.log_std)
    return arrays


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().contiguous().cpu().numpy()
