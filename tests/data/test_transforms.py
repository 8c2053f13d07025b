"""From bytes to x: against the same done by hand in NumPy, and what is random in its mean."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lvae_torch.data.transforms import Preprocess, fixed_uniform


def applied(preprocess: Preprocess, pixels: Tensor, training: bool) -> Tensor:
    return preprocess.training(pixels) if training else preprocess.evaluation(pixels, torch.arange(len(pixels)))


EIGHT_BITS = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(4, 16, 16, 3)


def raw(n: int = 6, n_levels: int = 256) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, n_levels, (n, 5, 7, 3), dtype=np.uint8))


@pytest.mark.parametrize("training", [False, True])
def test_pixels_become_numbers_from_0_to_1(training: bool) -> None:
    pixels = raw()
    x = applied(Preprocess(256), pixels, training)
    assert (x.shape, x.dtype) == ((6, 3, 5, 7), torch.float32)
    assert np.array_equal(x.numpy(), pixels.numpy().transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))
    assert torch.equal(pixels, raw()), "what was given must stay"


@pytest.mark.parametrize("training", [False, True])
def test_binary_dumps_are_0_and_1(training: bool) -> None:
    preprocess = Preprocess(2)
    assert preprocess.levels_after == 2
    assert torch.equal(applied(preprocess, raw(n_levels=2), training), raw(n_levels=2).permute(0, 3, 1, 2).float())
    assert Preprocess(2, n_bits=5).levels_after == 2  # fewer levels than bits allow: left alone
    fewer_bits = Preprocess(2, n_bits=5)
    assert torch.equal(applied(fewer_bits, raw(n_levels=2), training), applied(preprocess, raw(n_levels=2), training))


@pytest.mark.parametrize("n_bits", range(1, 9))
def test_fewer_bits_keep_whole_levels(n_bits: int) -> None:
    preprocess = Preprocess(256, n_bits=n_bits)
    levels = 2**n_bits
    assert preprocess.levels_after == levels
    x = applied(preprocess, EIGHT_BITS, training=False)[0, 0].flatten().numpy()
    by_hand = np.floor(np.arange(256) / 2 ** (8 - n_bits)) / (levels - 1)  # 5 bits: divided by 8, 32 levels
    assert np.allclose(x, by_hand, atol=1e-7)
    assert (x.min(), x.max(), len(np.unique(x))) == (0, 1, levels)


def test_half_of_the_training_images_are_mirrored_whole() -> None:
    pixels = raw(2000)
    flipped, plain = Preprocess(256, flip=True), Preprocess(256)
    torch.manual_seed(0)
    x, straight = applied(flipped, pixels, training=True), applied(plain, pixels, training=True)
    mirrored = (x == straight.flip(-1)).flatten(1).all(dim=1)
    kept = (x == straight).flatten(1).all(dim=1)
    assert (mirrored ^ kept).all()
    assert abs(int(mirrored.sum()) - 1000) < 5 * 2000**0.5 / 2  # five standard deviations
    assert torch.equal(applied(flipped, pixels, training=False), straight)


@pytest.mark.parametrize("n_bits", [5, 8])
@pytest.mark.parametrize("training", [False, True])
def test_dequantization_fills_each_level_evenly(n_bits: int, training: bool) -> None:
    preprocess = Preprocess(256, n_bits=n_bits, dequantize=True)
    torch.manual_seed(0)
    pixels = EIGHT_BITS.expand(4, 16, 16, 3).repeat(50, 1, 1, 1)
    x = applied(preprocess, pixels, training)
    assert x.min() >= 0
    assert x.max() <= 1
    inside = x.double() * 2**n_bits - (pixels.permute(0, 3, 1, 2) >> (8 - n_bits)).double()
    assert inside.min() >= -1e-4
    assert inside.max() <= 1 + 1e-4
    assert abs(inside.mean() - 0.5) < 5 * (1 / 12 / inside.numel()) ** 0.5


@pytest.mark.parametrize("training", [False, True])
def test_dynamic_binarization_draws_with_the_grey_value(training: bool) -> None:
    preprocess = Preprocess(256, binarize="dynamic")
    assert preprocess.levels_after == 2
    torch.manual_seed(0)
    pixels = EIGHT_BITS[:1, :, :, :1].expand(10_000, 16, 16, 1)
    x = applied(preprocess, pixels, training)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    grey = torch.arange(256).reshape(16, 16) / 255
    error = (x.mean(dim=(0, 1)) - grey).abs()
    assert (error <= 5 * (grey * (1 - grey) / 10_000).sqrt()).all()  # black stays black, white stays white
    assert torch.equal(applied(preprocess, pixels, training), x) != training  # anew for training only


def splitmix64(k: int) -> int:
    """The k-th output of the generator that starts at 0, in Python's whole numbers."""
    z = k * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def test_fixed_noise_is_that_of_splitmix64() -> None:
    assert splitmix64(1) == 0xE220A8397B1DCDAF  # as published with the generator
    indices = torch.tensor([0, 3, 9_999_999])
    noise = fixed_uniform(indices, torch.empty(3, 2, 2, 3))
    for row, i in enumerate(indices.tolist()):
        by_hand = [(splitmix64(i * 12 + k + 1) >> 40) / 2**24 for k in range(12)]
        assert noise[row].permute(1, 2, 0).flatten().tolist() == by_hand


@pytest.mark.parametrize("preprocess", [Preprocess(256, binarize="dynamic"), Preprocess(256, dequantize=True)])
def test_evaluation_sees_an_image_alike_in_every_batch(preprocess: Preprocess) -> None:
    pixels, indices = raw(50), torch.arange(100, 150)
    together = preprocess.evaluation(pixels, indices)
    torch.manual_seed(5)
    some = torch.tensor([40, 3, 17])
    assert torch.equal(preprocess.evaluation(pixels[some], indices[some]), together[some])
    assert not torch.equal(preprocess.evaluation(pixels, indices + 1), together)


@pytest.mark.parametrize("training", [False, True])
def test_values_without_levels_stay(training: bool) -> None:
    points = torch.randn(5, 1, 1, 2)
    preprocess = Preprocess(0)
    assert preprocess.levels_after == 0
    assert torch.equal(applied(preprocess, points, training), points.permute(0, 3, 1, 2))


@pytest.mark.parametrize("training", [False, True])
def test_codes_of_more_than_8_bits_are_scaled_by_their_levels(training: bool) -> None:
    codes = torch.tensor([0, 1, 511], dtype=torch.uint16).reshape(1, 1, 3, 1)
    assert torch.equal(applied(Preprocess(512), codes, training).flatten(), torch.tensor([0, 1, 511]) / 511)


def test_random_draws_follow_the_global_generator() -> None:
    preprocess = Preprocess(256, binarize="dynamic", flip=True)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(applied(preprocess, raw(), training=True))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_the_threshold_is_one_half() -> None:
    x = applied(Preprocess(256, binarize="threshold"), EIGHT_BITS, training=False)[0, 0].flatten()
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
    x = applied(preprocess, raw(), training)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
