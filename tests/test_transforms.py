"""From bytes to x: against the same done by hand in NumPy, and what is random in its mean."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lvae_torch.data.transforms import Preprocess

EIGHT_BITS = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(4, 16, 16, 3)


def raw(n: int = 6, n_levels: int = 256) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, n_levels, (n, 5, 7, 3), dtype=np.uint8))


@pytest.mark.parametrize("training", [False, True])
def test_pixels_become_numbers_from_0_to_1(training: bool) -> None:
    pixels = raw()
    x = Preprocess(256)(pixels, training)
    assert (x.shape, x.dtype) == ((6, 3, 5, 7), torch.float32)
    assert np.array_equal(x.numpy(), pixels.numpy().transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))
    assert torch.equal(pixels, raw()), "what was given must stay"


@pytest.mark.parametrize("training", [False, True])
def test_binary_dumps_are_0_and_1(training: bool) -> None:
    preprocess = Preprocess(2)
    assert preprocess.levels_after == 2
    assert torch.equal(preprocess(raw(n_levels=2), training), raw(n_levels=2).permute(0, 3, 1, 2).float())
    assert Preprocess(2, n_bits=5).levels_after == 2  # fewer levels than bits allow: left alone
    assert torch.equal(Preprocess(2, n_bits=5)(raw(n_levels=2), training), preprocess(raw(n_levels=2), training))


@pytest.mark.parametrize("n_bits", range(1, 9))
def test_fewer_bits_keep_whole_levels(n_bits: int) -> None:
    preprocess = Preprocess(256, n_bits=n_bits)
    levels = 2**n_bits
    assert preprocess.levels_after == levels
    x = preprocess(EIGHT_BITS, training=False)[0, 0].flatten().numpy()
    by_hand = np.floor(np.arange(256) / 2 ** (8 - n_bits)) / (levels - 1)  # 5 bits: divided by 8, 32 levels
    assert np.allclose(x, by_hand, atol=1e-7)
    assert (x.min(), x.max(), len(np.unique(x))) == (0, 1, levels)


def test_half_of_the_training_images_are_mirrored_whole() -> None:
    pixels = raw(2000)
    flipped, plain = Preprocess(256, flip=True), Preprocess(256)
    torch.manual_seed(0)
    x, straight = flipped(pixels, training=True), plain(pixels, training=True)
    mirrored = (x == straight.flip(-1)).flatten(1).all(dim=1)
    kept = (x == straight).flatten(1).all(dim=1)
    assert (mirrored ^ kept).all()
    assert abs(int(mirrored.sum()) - 1000) < 5 * 2000**0.5 / 2  # five standard deviations
    assert torch.equal(flipped(pixels, training=False), straight)


@pytest.mark.parametrize("n_bits", [5, 8])
def test_dequantization_fills_each_level_evenly(n_bits: int) -> None:
    preprocess = Preprocess(256, n_bits=n_bits, dequantize=True)
    torch.manual_seed(0)
    pixels = EIGHT_BITS.expand(4, 16, 16, 3).repeat(50, 1, 1, 1)
    x = preprocess(pixels, training=True)
    assert x.min() >= 0
    assert x.max() <= 1
    inside = x.double() * 2**n_bits - (pixels.permute(0, 3, 1, 2) >> (8 - n_bits)).double()
    assert inside.min() >= -1e-4
    assert inside.max() <= 1 + 1e-4
    assert abs(inside.mean() - 0.5) < 5 * (1 / 12 / inside.numel()) ** 0.5
    assert torch.equal(preprocess(pixels, training=False), Preprocess(256, n_bits=n_bits)(pixels, training=False))


@pytest.mark.parametrize("training", [False, True])
def test_dynamic_binarization_draws_with_the_grey_value(training: bool) -> None:
    preprocess = Preprocess(256, binarize="dynamic")
    assert preprocess.levels_after == 2
    torch.manual_seed(0)
    pixels = EIGHT_BITS[:1, :, :, :1].expand(10_000, 16, 16, 1)
    x = preprocess(pixels, training)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    grey = torch.arange(256).reshape(16, 16) / 255
    error = (x.mean(dim=(0, 1)) - grey).abs()
    assert (error <= 5 * (grey * (1 - grey) / 10_000).sqrt()).all()  # black stays black, white stays white
    assert not torch.equal(preprocess(pixels, training), x)


def test_random_draws_follow_the_global_generator() -> None:
    preprocess = Preprocess(256, binarize="dynamic", flip=True)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(preprocess(raw(), training=True))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_the_threshold_is_one_half() -> None:
    x = Preprocess(256, binarize="threshold")(EIGHT_BITS, training=False)[0, 0].flatten()
    assert torch.equal(x, (torch.arange(256) >= 128).float())


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(256),
        Preprocess(256, n_bits=5, flip=True, dequantize=True),
        Preprocess(256, binarize="dynamic"),
        Preprocess(256, binarize="threshold"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_x_is_channels_last_already(preprocess: Preprocess, training: bool) -> None:
    x = preprocess(raw(), training)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
