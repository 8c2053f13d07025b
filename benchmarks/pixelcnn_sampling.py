"""Drawing grids of codes from a PixelCNN: each position computed once, against a whole pass for each position.

python -m benchmarks.pixelcnn_sampling [--grids 100] [--naive]

Untrained networks of the published sizes, 8x8 grids of 128 codes, one thread: weights do not change the time.
"""

import argparse
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor

from lvae_torch.models.families import FAMILIES
from lvae_torch.models.sources import posterior_sample

SIZES: dict[str, dict[str, Any]] = {
    "plain, 9 blocks": {"embedding": 128},
    "gated, 15 layers of 7x7": {"gated": True, "layers": 15, "kernel": 7, "embedding": 128},
}


def naive(model: Any, n: int) -> Tensor:
    """A whole pass for each position."""
    x = torch.zeros(n, *model.image_shape)
    for i, j in product(*map(range, model.image_shape[1:])):
        x[:, :, i, j] = model(x, posterior_sample).likelihood.sample()[:, :, i, j]
    return x


WAYS: dict[str, Callable[[Any, int], Tensor]] = {"once": lambda model, n: model.draw(n), "naive": naive}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, default=100)
    parser.add_argument("--naive", action="store_true", help="time the whole passes too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    family = FAMILIES["pixelcnn"]
    ways = ("once", "naive") if options.naive else ("once",)
    for (name, size), way in product(SIZES.items(), ways):
        model = family(**size).build((1, 8, 8), 128).eval()
        wall, processor = time.perf_counter(), time.process_time()
        with torch.no_grad():
            WAYS[way](model, options.grids)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(f"{name:<26}{way:<8}{options.grids} grids: {processor:7.1f} s of one core ({wall:.1f} s passed)")


if __name__ == "__main__":
    main()
