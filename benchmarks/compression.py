"""How much of the processor time of compression is the networks', and how much the coding.

``python -m benchmarks.compression``; processor time, so that other work on the machine changes little.

With a run or bundle as argument, of its test images; else small models of random weights.
"""

import argparse
import io
import time

import numpy as np
import torch

from lvae_torch.compression.calibration import calibrate
from lvae_torch.compression.codec import Codec
from lvae_torch.compression.rounding import Rounding
from lvae_torch.compression.stack import Stack, Words
from lvae_torch.models.contract import Model
from lvae_torch.trained.loading import build_model, load_run


def measured(model: Model, n_levels: int, levels: np.ndarray, batch: int) -> tuple[float, float, float]:
    """Images a second encoded and decoded, and the share of the time that plain passes of the networks do not take."""
    model.eval()
    codec = Codec(model, n_levels, (), torch.device("cpu"), torch.float32, Rounding(False))
    x = codec.scaled(torch.from_numpy(levels))
    codec = Codec(model, n_levels, calibrate(model, x[:32]).grids, codec.device, codec.dtype, codec.rounding)
    words = Words(io.BytesIO())
    words.push(np.random.default_rng(0).integers(1, 2**32, 2_000_000, dtype=np.uint32))
    stack = Stack(words, spills=True)
    starts = range(0, len(levels), batch)
    begun = time.process_time()
    for first in starts:
        codec.encode(levels[first : first + batch], stack, first)
    encoded = time.process_time()
    for first in reversed(starts):
        assert np.array_equal(codec.decode(len(levels[first : first + batch]), stack, first), levels[first:][:batch])
    decoded = time.process_time()
    with torch.no_grad():
        for first in starts:
            part = x[first : first + batch]
            out = model.decode(model.encode(part), lambda i, prior, posterior: posterior.mean)  # type: ignore[union-attr]
            drawn = [latent.z for latent in out.latents]
            model.decode(None, lambda i, prior, posterior, drawn=drawn: drawn[i], len(part))  # type: ignore[misc]
    networks = time.process_time() - decoded
    n = len(levels)
    return n / (encoded - begun), n / (decoded - encoded), 1 - 2 * networks / (decoded - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", help="a run or bundle; its dump must be there")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.run:
        run = load_run(options.run, device="cpu")
        x = run.images(limit=options.images)
        n_levels = run.trained_on.n_levels
        cases = {run.name: (run.model, n_levels, torch.round(x * (n_levels - 1)).long().numpy())}
    else:
        rng = np.random.default_rng(0)
        cases = {
            "spatial_lvae 28x28 bernoulli": (
                build_model("spatial_lvae", (1, 28, 28), 2, z_channels=[8, 8, 16], n_filters=32, blocks_per_layer=1),
                2,
                rng.integers(0, 2, (options.images, 1, 28, 28)),
            ),
            "spatial_lvae 32x32 mixture of 10": (
                build_model(
                    "spatial_lvae", (3, 32, 32), 256, z_channels=[8, 8], downsample=[1, 1], n_filters=32,
                    blocks_per_layer=1, likelihood="discretized_logistic_mixture",
                ),
                256,
                rng.integers(0, 256, (options.images, 3, 32, 32)),
            ),
        }  # fmt: skip
    for name, (model, n_levels, levels) in cases.items():
        encoded, decoded, share = measured(model, n_levels, levels.astype(np.int64), options.batch)
        print(f"{name:<40} {encoded:8.1f} images/s encoded {decoded:8.1f} decoded, coding {100 * share:.0f} %")


if __name__ == "__main__":
    main()
