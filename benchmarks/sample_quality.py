"""FID of 10,000 images of 32x32: how much of the time is the extractor's own.

    python -m benchmarks.sample_quality [--images 10000] [--timed 128]

The network is Inception in its published form with random weights, which costs the same. On a CPU it takes a third of a
second an image; so it is timed on a few images, and everything around it on all of them, with a stand-in that gives
features of the same size at once.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from lvae_torch.distributed.place import choose_device
from lvae_torch.synthesis.extractors import Extractor
from lvae_torch.synthesis.features import Collection, as_pixels
from lvae_torch.synthesis.parts import Parts
from lvae_torch.synthesis.quality import frechet_distance, moments

BATCH = 100
WIDTH, CLASSES = 2048, 1008


class Alone:
    """This process, as a collection needs it."""

    def __init__(self) -> None:
        self.processes = self
        self.rank, self.world, self.is_main = 0, 1, True

    def barrier(self) -> None:
        """There is nobody to wait for."""


def inception(device: torch.device) -> Callable[[Tensor], Any]:
    """Inception with random weights."""
    from torch_fidelity import feature_extractor_inceptionv3 as published

    kind = published.FeatureExtractorInceptionV3
    with (
        mock.patch.object(published, "load_state_dict_from_url", lambda *_, **__: {}),
        mock.patch.object(kind, "load_state_dict", lambda *_, **__: None),
    ):
        network = kind("inception", ["2048", "logits_unbiased"])
    return network.to(device).eval()  # type: ignore[no-any-return]


def stand_in(device: torch.device) -> Callable[[Tensor], Any]:
    """As many numbers, at once."""
    weight = torch.randn(3 * 32 * 32, WIDTH, device=device) / 64

    def network(pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = pixels.flatten(1).float() @ weight
        return features, features[:, :CLASSES]

    return network


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long ``work`` takes."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def whole(images: np.ndarray, network: Callable[[Tensor], Any], device: torch.device) -> None:
    """FID as the mode computes it, of images against themselves, whose statistics are there."""
    extractor = Extractor(network, "benchmark", "", is_inception=True)

    def draw(first: int, count: int) -> Tensor:
        return torch.from_numpy(images[first : first + count]).to(device).permute(0, 3, 1, 2).float() / 255

    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(Path(folder), "benchmark")
        collection = Collection("samples", len(images), draw, parts, BATCH)
        collection.compute(Alone(), extractor)  # type: ignore[arg-type]
        found = moments(collection.read(Path(folder)).features, device)
    print(f"FID against itself: {frechet_distance(found, found):.2g}")


def main() -> None:
    """Print the extractor's share of the time."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=10_000)
    options.add_argument("--timed", type=int, default=128, help="images that Inception is timed on, on a CPU")
    given = options.parse_args()
    device = choose_device("auto")
    images = np.random.default_rng(0).integers(0, 256, (given.images, 32, 32, 3), dtype=np.uint8)
    network = inception(device)
    timed = images if device.type == "cuda" else images[: given.timed]
    pixels = [as_pixels(torch.from_numpy(x).to(device).permute(0, 3, 1, 2) / 255) for x in np.split(
        timed, range(BATCH, len(timed), BATCH))]  # fmt: skip

    def bare() -> None:
        for batch in pixels:
            network(batch)

    with torch.no_grad():
        network(pixels[0][:8])
        per_image = seconds(bare, device) / len(timed)
        around = seconds(lambda: whole(images, stand_in(device), device), device)
    extracting = per_image * given.images
    print(f"{device}, {torch.get_num_threads()} threads: Inception {1 / per_image:,.1f} images/s, {len(timed):,} timed")
    print(f"{given.images:,} images: extractor alone {extracting:,.1f} s, everything around it {around:,.2f} s")
    print(f"FID at {extracting / (extracting + around):.1%} of the extractor's bare speed")


if __name__ == "__main__":
    main()
