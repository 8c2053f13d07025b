"""Encoding: writes latents and posteriors of a whole split to files that NumPy can open.

arrays = numpy.load("part_00000.npz")          # or safetensors.numpy.load_file("part_00000.safetensors")
arrays["z.0"]                                  # top layer: (n, Z, h, w); also posterior_mean.0, posterior_log_std.0
arrays["indices"]                              # indices of these images in the split
arrays["labels"]                               # their classes, where the model is class-conditional
"""

import math
import shutil
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from lvae_torch.distributions import DiagonalGaussian
from lvae_torch.errors import DataError, NumericalError
from lvae_torch.files import write_json, write_text
from lvae_torch.models.contract import Latent, Source
from lvae_torch.synthesis.code_dump import check_code_dump, write_code_dump
from lvae_torch.synthesis.parts import Arrays, Parts
from lvae_torch.synthesis.session import Batch, Session
from lvae_torch.synthesis.singles import single_names
from lvae_torch.synthesis.variates import Kept, kept_variates

STORED = ("z", "posterior_mean", "posterior_log_std")
MOST_BYTES = 2**30  # size limit of a part, which is held in memory
INDEX, NAMES = "index.json", "names.txt"
LABELS = "labels"


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """Write the kept variates in parts of ``shard_size`` images (fewer if latents are huge), in whole batches.

    A repeated mode keeps finished parts.

    Raises:
        DataError: if the disk has no room for all parts.
    """
    options, shapes = session.options, session.latent_shapes
    if session.code_source is not None and options.codes_to is not None:
        check_code_dump(session, session.code_source, options.codes_to)  # fail before hours of encoding
    kept = kept_variates(session)
    per_image = _bytes_per_image(session, kept)
    shard_size = min(options.shard_size, MOST_BYTES // max(1, per_image))
    count = session.n_shards(shard_size)
    parts = session.parts(
        count, "batch_size", "shard_dtype",
        file_format=options.shard_format, said={"kept": kept.channels, "shard_size": shard_size},
    )  # fmt: skip
    _prepare(session, parts, count, per_image)
    source = kept.source(shapes, session.processes.device)
    for j, batches in session.shards(shard_size):
        if not parts.is_done(j):
            parts.write(j, _encode(session, batches, source, kept))
    session.processes.barrier()
    summary: dict[str, object] = {
        "n_images": len(session.images.indices),
        "latent_shapes": [list(shape) for shape in shapes],
        "arrays": f"{'.i, '.join(STORED)}.i ({options.shard_dtype}; i = 0 is the top layer), indices",
        "keep_fraction": options.keep_fraction,
        "kept_per_layer": [len(channels) for channels in kept.channels],
        "parts": [parts.path(j).name for j in range(count)],
    }
    if session.processes.is_main:
        _write_names(session)
        write_json(session.out / INDEX, {**session.identity, **summary, "kept": kept.channels})
    if session.code_source is not None and options.codes_to is not None:
        summary |= write_code_dump(session, session.code_source, options.codes_to)
    return summary


def _encode(session: Session, batches: Iterable[Batch], source: Source, kept: Kept) -> Arrays:
    pieces = [
        {
            "indices": indices,
            **_labels(session, indices),
            **_arrays(session.passed(x, indices, source).latents, kept, session.options.shard_dtype),
        }
        for indices, x in batches
    ]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _labels(session: Session, indices: np.ndarray) -> dict[str, np.ndarray]:
    """The classes that a class-conditional model was told, and must be told to decode."""
    labels = session.labels_at(indices)
    return {} if labels is None else {LABELS: labels.cpu().numpy()}


def _arrays(latents: tuple[Latent, ...], kept: Kept, dtype: str) -> dict[str, np.ndarray]:
    """z of the kept variates, (b, kept, ...), with the moments of Gaussian posteriors; skips layers that keep none."""
    arrays: dict[str, np.ndarray] = {}
    for i, (latent, channels) in enumerate(zip(latents, kept.channels, strict=True)):
        values = {"z": latent.z}
        if isinstance(latent.encoded, DiagonalGaussian):
            values |= {"posterior_mean": latent.encoded.mean, "posterior_log_std": latent.encoded.log_std}
        if channels:
            arrays |= {f"{name}.{i}": _numpy(value[:, channels], dtype) for name, value in values.items()}
    return arrays


def _numpy(values: Tensor, dtype: str) -> np.ndarray:
    """Convert floats to ``dtype``, and codes to int32.

    Raises:
        NumericalError: if one is too large for ``dtype``.
    """
    array = (values.float() if values.is_floating_point() else values.int()).contiguous().cpu().numpy()
    if not values.is_floating_point():
        return array
    if (largest := np.abs(array[np.isfinite(array)]).max(initial=0.0)) > np.finfo(dtype).max:
        raise NumericalError(
            f"[synthesis] shard_dtype = {dtype} holds numbers up to {np.finfo(dtype).max:,.0f}; the latents reach "
            f"{largest:,.0f}. Set shard_dtype = float32."
        )
    return array.astype(dtype)


def _bytes_per_image(session: Session, kept: Kept) -> int:
    layers = zip(kept.channels, session.latent_shapes, strict=True)
    values = sum(len(channels) * math.prod(shape[1:]) for channels, shape in layers)
    return len(STORED) * values * np.dtype(session.options.shard_dtype).itemsize


def _prepare(session: Session, parts: Parts, count: int, per_image: int) -> None:
    """Print how much disk space the parts need; raise DataError if there is too little."""
    written = sum(path.stat().st_size for path in map(parts.path, range(count)) if path.is_file())
    n_images, free = len(session.images.indices), shutil.disk_usage(session.out).free
    needed = n_images * per_image
    told = f"{session.out}: {n_images:,} images x {_size(per_image)} = {_size(needed)}, {_size(written)} of it there"
    if needed - written > free:
        raise DataError(
            f"{told}; the disk has {_size(free)} left. Store less: [synthesis] keep_fraction, shard_dtype, limit."
        )
    if session.processes.is_main:
        print(f"{told}; the disk has {_size(free)} left.", flush=True)
        (session.out / INDEX).unlink(missing_ok=True)  # the index returns when all parts are written
    session.processes.barrier()  # no rank writes before all have measured


def _size(n_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.4g} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.4g} TiB"


def _write_names(session: Session) -> None:
    """Write one line per image: its index in the split, a tab, the name of its source file."""
    path, names = session.out / NAMES, session.names
    if names is None:
        path.unlink(missing_ok=True)
    else:
        lines = [f"{i}\t{names[i]}{_picture_told(session, i)}\n" for i in session.images.indices.tolist()]
        write_text(path, "".join(lines))


def _picture_told(session: Session, i: int) -> str:
    """A column with the name of image i's picture, where its file's name alone does not tell."""
    assert session.names is not None and session.single_names is not None
    name, picture = session.names[i], session.single_names[i]
    return f"\t{picture}" if "\t" in name or single_names([name]) != [picture] else ""
