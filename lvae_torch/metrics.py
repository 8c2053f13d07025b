"""How alike two images are: PSNR and SSIM, per image."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of images (B, C, H, W) in [0, 1], in dB, (B,); infinite where they are equal."""
    return -10 * torch.log10(((x - y) ** 2).flatten(1).mean(dim=1))


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of images (B, C, H, W) in [0, 1], (B,).

    Gaussian window of 11 pixels and sigma 1.5, K = 0.01 and 0.03, windows wholly inside the image, colours averaged;
    for images below 11 pixels the window shrinks to the largest odd size that fits.
    """
    size = min(WINDOW, *(side - 1 + side % 2 for side in x.shape[-2:]))
    window = _gaussian(size, x)
    mean_x, mean_y = _blur(x, window), _blur(y, window)
    var_x, var_y = _blur(x * x, window) - mean_x**2, _blur(y * y, window) - mean_y**2
    covariance = _blur(x * y, window) - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return similarity.flatten(1).mean(dim=1)


def _gaussian(size: int, like: Tensor) -> Tensor:
    offsets = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    weights = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    return weights / weights.sum()


def _blur(x: Tensor, window: Tensor) -> Tensor:
    channels, size = x.shape[1], len(window)
    rows = window.view(1, 1, size, 1).expand(channels, 1, size, 1)
    return conv2d(conv2d(x, rows, groups=channels), rows.transpose(2, 3), groups=channels)
