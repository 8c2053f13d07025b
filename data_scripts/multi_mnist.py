"""Binary multi-MNIST: 0, 1 or 2 shrunken MNIST digits per image, made here from the 60,000 training digits."""

import gzip
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


def make(request: Request) -> str:
    """The published recipe: 100,000 images 64x64, the first 90 % for training."""
    path = fetch(DIGITS, request.bases(*UPSTREAM), request.raw)
    sprites = shrink(read_idx_images(path))[..., None]
    return write_sprites(
        "multi_mnist", sprites, request, {"sprites": "MNIST training digits, 28 to 18 pixels, rounded"}
    )


def read_idx_images(path: Path) -> np.ndarray:
    """Images of an idx file, gzipped: uint8 (n, H, W).

    Raises:
        DataError: if it is no such file.
    """
    try:
        with gzip.open(path) as file:
            magic, n, height, width = np.frombuffer(file.read(16), dtype=">i4").tolist()
            data = np.frombuffer(file.read(), dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}). Delete it and try again.") from error
    if magic != 2051 or len(data) != n * height * width:
        raise DataError(f"{path}: not an idx file of images (magic {magic}, {len(data):,} pixels).")
    return data.reshape(n, height, width)


def shrink(digits: np.ndarray) -> np.ndarray:
    """uint8 (n, 28, 28) -> binary uint8 (n, 18, 18): cubic, anti-aliased, rounded."""
    from skimage.transform import resize

    size = (len(digits), PATCH, PATCH)
    # One call over the stack: the first axis keeps its size, so neither blur nor interpolation crosses images.
    small = resize(digits / 255, size, order=3, mode="constant", anti_aliasing=True, clip=True)
    return np.round(np.clip(small, 0, 1)).astype(np.uint8)


RECIPE = Recipe(
    "100,000 binary images 64x64 of 0 to 2 MNIST digits, made here (9.9 MB download)", make, add_sprite_options
)
