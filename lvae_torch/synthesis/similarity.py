"""Similarity of two images: PSNR and SSIM, per image."""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from lvae_torch.distributed.place import in_float64

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of images (B, C, H, W) in [0, 1], in dB, (B,); infinite if they are equal."""
    return -10 * torch.log10(((x - y) ** 2).flatten(1).mean(dim=1))


def ssim(x: Tensor, y: Tensor, zero_padded: bool = False) -> Tensor:
    """Structural similarity of images (B, C, H, W) in [0, 1], (B,), float64 (Wang et al. 2004, Eq. 13).

    It uses a Gaussian window of 11 pixels with sigma 1.5, K = 0.01 and 0.03, windows inside the image, and the mean
    over colours. For images below 11 pixels the window shrinks to the largest odd size that fits. ``zero_padded``
    gives the value that Efficient-VDVAE reports: a window around every pixel, with zeros beyond the border. Variances
    are small differences, of which convolutions in TF32 leave nothing.
    """
    x, y = in_float64(x), in_float64(y)
    size = WINDOW if zero_padded else min(WINDOW, *(side - 1 + side % 2 for side in x.shape[-2:]))
    blur = partial(_blur, window=_gaussian(size, x), padding=size // 2 if zero_padded else 0)
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return similarity.flatten(1).mean(dim=1)


def _gaussian(size: int, like: Tensor) -> Tensor:
    offsets = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    weights = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    return weights / weights.sum()


def _blur(x: Tensor, window: Tensor, padding: int) -> Tensor:
    channels, size = x.shape[1], len(window)
    rows = window.view(1, 1, size, 1).expand(channels, 1, size, 1)
    blurred = conv2d(x, rows, groups=channels, padding=(padding, 0))
    return conv2d(blurred, rows.transpose(2, 3), groups=channels, padding=(0, padding))
