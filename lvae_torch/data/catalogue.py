"""Image shapes and levels of known datasets, for cfgs whose dump does not exist yet.

``catalogue.json`` is made from the recipes: ``python -m data_scripts --catalogue > lvae_torch/data/catalogue.json``.
"""

import json
from pathlib import Path

from lvae_torch.data.shapes import ImageShape


def _read() -> dict[str, tuple[ImageShape, int]]:
    known = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return {name: ((channels, height, width), levels) for name, ((channels, height, width), levels) in known.items()}


CATALOGUE = _read()
"""Image shape (C, H, W) and levels, by name of the dump."""

OWN: dict[str, tuple[ImageShape, int]] = {
    "own_images": ((3, 64, 64), 256),
    "own_images_128": ((3, 128, 128), 256),
    "own_images_256": ((3, 256, 256), 256),
}
"""The same of a person's own pictures, for the cfgs to begin with in ``egs``; a dump of another size counts first."""

CODES: dict[str, tuple[ImageShape, int]] = {
    "vqvae_cifar10_codes": ((1, 8, 8), 128),
    "vqvae_svhn_codes": ((1, 8, 8), 128),
    "vqvae_cifar10_small_codes": ((1, 8, 8), 128),
}
"""The same for dumps of codes: the run named before ``_codes`` writes them in encoding mode."""
