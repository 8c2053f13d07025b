"""Compression: a split into an archive and back, every pixel compared, and the rate held against -ELBO."""

import io
import time
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch

from lvae_torch.compression.archive import Written
from lvae_torch.compression.chain import most_in_a_batch
from lvae_torch.compression.compressor import Compressor, Contents
from lvae_torch.compression.pictures import Levels
from lvae_torch.compression.pixels import proper
from lvae_torch.compression.sources import SplitLevels, ToldOf
from lvae_torch.elbo.bounds import bits_per_dim, elbo_terms
from lvae_torch.errors import NumericalError
from lvae_torch.models.contract import Output
from lvae_torch.models.sources import posterior_sample
from lvae_torch.reporting.figures import figure, label_axes
from lvae_torch.reporting.progress import Progress
from lvae_torch.synthesis.session import Session

CROWDED = 10  # layers, above which the picture's words stand upright


@dataclass(frozen=True)
class _Bound:
    """-ELBO of images, in nats: what their bits are held against."""

    nelbo: np.ndarray  # (N,)
    kl: np.ndarray  # (L,)  of each layer, mean over images


def run(session: Session) -> dict[str, object]:
    """Compress, decompress, compare, in one process, for the images are chained.

    Raises:
        CfgError: if the model's likelihood is no probability of pixel levels, or it is class-conditional.
        NumericalError: if an image came back changed.
    """
    source = SplitLevels(session.images)
    compressor = Compressor(session.model, source.n_levels, str(session.identity["run"]))
    progress = Progress()
    batch = min(session.options.batch_size, most_in_a_batch(session.model.image_shape))
    with session.scratch() as folder:
        path = folder / "images.lvz"
        start = time.perf_counter()
        told = ToldOf(source, lambda done: progress("compressing", done, len(source)))
        written = compressor.compress(told, path, Contents(str(session.identity["split"])), batch)
        to_compress = time.perf_counter() - start
        to_decompress = _decompressed(compressor, path, source, progress)
    progress.close()
    rates = {
        "images_per_s_compressed": len(source) / to_compress,
        "images_per_s_decompressed": len(source) / to_decompress,
    }
    bound = _bound(session)
    _draw(session, written, bound)
    return {**_against_bound(session, written, bound), **rates, **_other_formats(source, written)}


def _draw(session: Session, written: Written, bound: _Bound) -> None:
    """Where an image's bits go, by layer."""
    to_bits = np.log(2)
    pixels = (bound.nelbo.mean() - bound.kl.sum()) / to_bits
    rest = (written.container + written.account.overhead_bits) / len(bound.nelbo)
    names = [f"z {i}" for i in range(len(bound.kl))]
    with figure(session.out / "bits.png", max(6.4, 0.3 * len(names)), 3.6) as drawing:
        axes = drawing.subplots()
        values = [*(bound.kl / to_bits), pixels, rest]
        bars = axes.bar([*names, "x", "archive"], values, color=["C0"] * len(names) + ["C1", "C2"])
        is_crowded = len(names) > CROWDED
        axes.bar_label(bars, fmt="%.3g", fontsize="small", rotation=90 if is_crowded else 0)
        axes.tick_params("x", rotation=90 if is_crowded else 0)
        axes.margins(y=0.2)
        title = "Where the bits go: KL of each layer (top first), x given z, archive"
        label_axes(axes, "", "bits per image", title)


def _decompressed(compressor: Compressor, path: Path, source: SplitLevels, progress: Progress) -> float:
    """Seconds that decompression takes, after every image was found to be the same."""
    first, seconds, start = 0, 0.0, time.perf_counter()
    with compressor.opened(path) as (_, groups):
        for levels in groups:
            seconds += time.perf_counter() - start
            if not np.array_equal(levels, source.levels(first, len(levels))):
                raise NumericalError(f"images from number {first} on came back changed: this is a defect, tell us.")
            first += len(levels)
            progress("decompressing", first, len(source))
            start = time.perf_counter()
    return seconds


@torch.no_grad()
def _bound(session: Session) -> _Bound:
    """One posterior sample of each image; where published masses do not add up to one, of those that do."""
    nelbo, kl = [], []
    for _, (_, x) in session.posterior_batches():
        out = session.model(x, posterior_sample)
        terms = elbo_terms(x, Output(proper(out.likelihood), out.latents))
        nelbo.append(terms.nelbo.cpu().double().numpy())
        kl.append(terms.kl.cpu().double().numpy())
    return _Bound(np.concatenate(nelbo), np.concatenate(kl).mean(axis=0))


def _against_bound(session: Session, written: Written, bound: _Bound) -> dict[str, object]:
    """The last images are coded first, without the model, until the stack can pay for a posterior."""
    n_dims = prod(session.model.image_shape)
    n_plain = written.account.plain_images
    n_coded = len(bound.nelbo) - n_plain
    coded = written.bits - written.container - written.account.plain_bits
    promised = bound.nelbo[:n_coded]
    rate = coded / (n_coded * n_dims) if n_coded else None
    wanted = bits_per_dim(float(promised.mean()), n_dims) if n_coded else None
    plain_worth = float(bound.nelbo[n_coded:].sum()) / np.log(2)
    return {
        "n_images": len(bound.nelbo),
        "bytes": written.bits // 8,
        "bits_per_dim_of_archive": written.bits / (len(bound.nelbo) * n_dims),
        "bits_per_dim": rate,
        "nelbo_bits_per_dim": wanted,
        "gap_percent": 100 * (rate / wanted - 1) if rate and wanted else None,
        "start_up_images": n_plain,
        "start_up_bits": written.account.plain_bits - plain_worth,
        "container_bits": written.container,
        "check_bits": written.account.overhead_bits,
        "kl_bits_per_dim_per_layer": [bits_per_dim(float(kl), n_dims) for kl in bound.kl],
    }


def _other_formats(source: SplitLevels, written: Written) -> dict[str, object]:
    """Bits of raw pixels, and of each image as a PNG and as a WebP without loss, for each bit of the archive."""
    channels = source.levels(0, 1).shape[1]
    n_bits = {"raw": 0, "png": 0, "webp": 0}
    for i in range(len(source)):
        levels = source.levels(i, 1)[0]
        n_bits["raw"] += levels.size * (source.n_levels - 1).bit_length()
        if channels in (1, 3) and source.n_levels <= 256 and source.n_levels & (source.n_levels - 1) == 0:
            for name, size in _picture_bits(Levels(source.n_levels).values(levels.transpose(1, 2, 0))).items():
                n_bits[name] += size
    return {f"{name}_to_archive": n / written.bits for name, n in n_bits.items() if n}


def _picture_bits(values: np.ndarray) -> dict[str, int]:
    """Of values, uint8 (H, W, C)."""
    from PIL import Image

    is_grey = values.shape[2] == 1
    image = Image.fromarray(values[..., 0] if is_grey else values)
    if is_grey and not set(np.unique(values)) - {0, 255}:
        image = image.convert("1")
    png, webp = io.BytesIO(), io.BytesIO()
    image.save(png, "PNG", optimize=True)
    image.convert("RGB").save(webp, "WEBP", lossless=True, quality=100, method=6)
    return {"png": 8 * len(png.getvalue()), "webp": 8 * len(webp.getvalue())}
