"""PSNR and SSIM against scikit-image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tf32 import Tf32

from lvae_torch.synthesis.similarity import psnr, ssim


def pair(channels: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, channels, height, width, generator=generator, dtype=torch.float64)
    return x, (x + 0.2 * torch.randn(x.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 20)])
def test_ssim_is_scikit_images_gaussian_one(shape: tuple[int, int, int]) -> None:
    """Its windows at the border are reflected: only those wholly inside the image are compared."""
    x, y = pair(*shape)
    ours = ssim(x, y)
    for k in range(len(x)):
        _, full = structural_similarity(
            x[k].numpy(), y[k].numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            channel_axis=0, full=True,
        )  # fmt: skip
        assert ours[k].item() == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-9)


def test_zero_padded_ssim_has_a_window_around_every_pixel() -> None:
    """Pixel by pixel, with the window's weights as a table."""
    x, y = (image[0, 0].numpy() for image in pair(1, 7, 9))
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    a, b = np.pad(x, 5), np.pad(y, 5)
    values = []
    for row, column in np.ndindex(x.shape):
        u, v = a[row : row + 11, column : column + 11], b[row : row + 11, column : column + 11]
        mean_u, mean_v, uu, vv, uv = ((weights * w).sum() for w in (u, v, u * u, v * v, u * v))
        luminance = (2 * mean_u * mean_v + 0.01**2) / (mean_u**2 + mean_v**2 + 0.01**2)
        structure = (2 * (uv - mean_u * mean_v) + 0.03**2) / (uu - mean_u**2 + vv - mean_v**2 + 0.03**2)
        values.append(luminance * structure)
    ours = ssim(*(torch.from_numpy(image)[None, None] for image in (x, y)), zero_padded=True)
    assert ours.item() == pytest.approx(np.mean(values), abs=1e-9)


def test_zero_padded_ssim_is_efficient_vdvaes(shared: Path) -> None:
    golden = np.load(shared / "golden" / "efficient_vdvae" / "components" / "ssim.npz", allow_pickle=False)
    for j in range(4):
        x, y = (torch.from_numpy(golden[f"{name}_{j}"]).double() / 2 + 0.5 for name in "xy")
        np.testing.assert_allclose(ssim(x, y, zero_padded=True).numpy(), golden[f"ssim_{j}"], atol=1e-6)


def test_psnr_is_scikit_images() -> None:
    x, y = pair(3, 16, 16)
    expected = [peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1.0) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(psnr(x, y).numpy(), expected)


def test_an_image_is_like_itself() -> None:
    x, _ = pair(1, 12, 12)
    assert ssim(x, x).tolist() == pytest.approx([1.0] * 3)
    assert psnr(x, x).isinf().all()


def test_small_images_get_a_smaller_window() -> None:
    x, y = pair(1, 8, 6)
    assert (ssim(x, y) < 1).all()


def test_a_card_that_rounds_products_measures_the_same_similarity() -> None:
    x = torch.full((1, 1, 28, 28), 0.93)
    y = x + 0.004 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    expected = ssim(x.double(), y.double())
    with Tf32():
        assert ssim(x, y).item() == pytest.approx(expected.item(), abs=1e-6)
