"""Binary multi-MNIST: 0, 1 or 2 shrunken MNIST digits per image, made here; or the file that was published."""

import numpy as np

from data_scripts.formats import read_idx
from data_scripts.mnist import DIGITS, UPSTREAM
from data_scripts.multi_object import PATCH
from data_scripts.recipe import Recipe, Request
from data_scripts.sprites_dump import add_sprite_options, write_published, write_sprites
from data_scripts.upstream import Source

FOLDER = "binary_mnist"
PUBLISHED = Source("multi_binary_mnist_012.npz")
AT_ONCE = 5000  # digits in float64


def write(request: Request) -> str:
    """The published recipe: 100,000 images 64x64, the first 90 % for training."""
    if request.options["published"]:
        return write_published("multi_mnist_published", 1, PUBLISHED, FOLDER, request)
    digits = read_idx(request.fetch(DIGITS[0], *UPSTREAM))
    provenance = {"source": DIGITS[0].name, "sprites": "MNIST training digits, 28 to 18 pixels, rounded"}
    return write_sprites("multi_mnist", binary_sprites(digits), request, provenance)


def binary_sprites(digits: np.ndarray) -> np.ndarray:
    """uint8 (n, 28, 28) -> rounded to uint8 0/1, (n, 18, 18, 1)."""
    parts = [shrink(digits[first : first + AT_ONCE]) for first in range(0, len(digits), AT_ONCE)]
    return np.concatenate([part.round().astype(np.uint8) for part in parts])[..., None]


def shrink(digits: np.ndarray) -> np.ndarray:
    """uint8 (n, 28, 28) -> float64 (n, 18, 18) in [0, 1], as scikit-image's cubic, anti-aliased ``resize`` does it."""
    from skimage.transform import resize

    # Blur and cubic interpolation are linear and go axis by axis, so what they do to the identity does it to all.
    side = digits.shape[1]
    along = resize(np.eye(side), (PATCH, side), order=3, mode="constant", anti_aliasing=True, clip=False)  # (18, 28)
    grey = digits / 255
    small = along @ grey @ along.T
    return np.clip(small, grey.min(axis=(1, 2), keepdims=True), grey.max(axis=(1, 2), keepdims=True))


RECIPE = Recipe(
    name="multi_mnist",
    looks=dict.fromkeys(("multi_mnist", "multi_mnist_1", "multi_mnist_published"), ((1, 64, 64), 2)),
    images="90,000 + 10,000",
    pixels="64x64 binary",
    download="9.9 MB",
    dump="410 MB",
    licence="CC BY-SA 3.0 (MNIST)",
    write=write,
    add_own_options=add_sprite_options,
    variants={"multi_mnist_1": {"objects": "1"}, "multi_mnist_published": {"published": True}},
)
