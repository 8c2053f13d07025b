"""Binary multi-MNIST: 0, 1 or 2 shrunken MNIST digits per image, made here from the 60,000 training digits."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from data_scripts.download import Source, fetch
from data_scripts.multi_object import PATCH
from data_scripts.recipe import Recipe, Request
from data_scripts.sprites_dump import add_sprite_options, write_sprites
from lvae_torch.errors import DataError

UPSTREAM = ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist")
DIGITS = Source(
    "train-images-idx3-ubyte.gz", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
)
AT_ONCE = 5000  # digits in float64


def write(request: Request, raw: Path) -> str:
    """The published recipe: 100,000 images 64x64, the first 90 % for training."""
    digits = read_idx_images(fetch(DIGITS, request.bases(*UPSTREAM), raw))
    provenance = {"source": DIGITS.name, "sprites": "MNIST training digits, 28 to 18 pixels, rounded"}
    return write_sprites("multi_mnist", binary_sprites(digits), request, provenance)


def read_idx_images(path: Path) -> np.ndarray:
    """Images of an idx file, gzipped: uint8 (n, H, W).

    Raises:
        DataError: if it is no such file.
    """
    try:
        with gzip.open(path) as file:
            magic, n, height, width = np.frombuffer(file.read(16), dtype=">i4").tolist()
            data = np.frombuffer(file.read(), dtype=np.uint8)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: damaged ({error}). Delete it and try again.") from error
    if magic != 2051 or len(data) != n * height * width:
        raise DataError(f"{path}: not an idx file of images (magic {magic}, {len(data):,} pixels).")
    return data.reshape(n, height, width)


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
    images="90,000 + 10,000",
    pixels="64x64 binary",
    download="9.9 MB",
    dump="410 MB",
    licence="CC BY-SA 3.0 (MNIST)",
    write=write,
    add_own_options=add_sprite_options,
)
