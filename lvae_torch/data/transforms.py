"""From raw pixels to model input x, computed on the device."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Preprocess:
    """Raw batch (b, H, W, C) -> float32 x, (b, C, H, W): pixels in [0, 1]; continuous values stay unchanged."""

    n_levels: int
    """Pixel levels in the dump; 0 for continuous values."""
    n_bits: int = 8
    binarize: Literal["none", "dynamic", "threshold"] = "none"
    flip: bool = False
    dequantize: bool = False

    @property
    def levels_after(self) -> int:
        """Pixel levels of x; 0 for continuous values."""
        return 2 if self.binarize != "none" else self._kept_levels

    @property
    def _kept_levels(self) -> int:
        return min(self.n_levels, 2**self.n_bits) if self._is_8_bit else self.n_levels

    @property
    def _adds_noise(self) -> bool:
        return self.dequantize and self.binarize == "none"

    @property
    def _is_8_bit(self) -> bool:
        return self.n_levels == 256

    def training(self, raw: Tensor) -> Tensor:
        """x with fresh random draws from torch's global generator, which every training step seeds."""
        pixels = self._pixels(raw)
        x = self._scaled(pixels, torch.rand_like(pixels) if self._adds_noise else None)
        if self.flip:
            mirrored = torch.rand(x.shape[0], 1, 1, 1, device=x.device) < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
        return (torch.rand_like(x) < x).float() if self.binarize == "dynamic" else self._thresholded(x)

    def evaluation(self, raw: Tensor, indices: Tensor) -> Tensor:
        """x for evaluation: the same for every seed, batch size and number of processes.

        Args:
            indices: index of each image in its split, int64 (b,), on the device of ``raw``.
        """
        pixels = self._pixels(raw)
        noise = fixed_uniform(indices, pixels) if self._adds_noise or self.binarize == "dynamic" else None
        x = self._scaled(pixels, noise if self._adds_noise else None)
        return (noise < x).float() if self.binarize == "dynamic" and noise is not None else self._thresholded(x)

    def _pixels(self, raw: Tensor) -> Tensor:
        pixels = raw.permute(0, 3, 1, 2)  # a view, and channels_last already
        if self._kept_levels < self.n_levels:
            pixels = pixels >> (8 - self.n_bits)
        return pixels.float()

    def _scaled(self, pixels: Tensor, noise: Tensor | None) -> Tensor:
        if noise is not None:
            return (pixels + noise) / self._kept_levels
        return pixels / (self._kept_levels - 1) if self.n_levels else pixels

    def _thresholded(self, x: Tensor) -> Tensor:
        return (x >= 0.5).float() if self.binarize == "threshold" else x


def fixed_uniform(indices: Tensor, like: Tensor) -> Tensor:
    """Numbers in [0, 1) that depend only on the image's index and the pixel's place, on every device.

    They are the splitmix64 output function (Steele, Lea and Flood 2014) of a running number, in 64-bit integers.

    Args:
        indices: int64 (b,).
        like: (b, C, H, W), the shape of the result.
    """
    _, channels, height, width = like.shape
    n = channels * height * width
    places = torch.arange(n, device=like.device).reshape(height, width, channels).permute(2, 0, 1)
    z = (indices.reshape(-1, 1, 1, 1) * n + places + 1) * _signed(0x9E3779B97F4A7C15)
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    return _shift(z ^ _shift(z, 31), 40).float() / 2**24


def _signed(constant: int) -> int:
    """The same 64 bits as a signed integer, because torch multiplies signed ones."""
    return constant - 2**64 if constant >= 2**63 else constant


def _shift(z: Tensor, bits: int) -> Tensor:
    """Shift to the right, filling with zeros."""
    return (z >> bits) & (2 ** (64 - bits) - 1)
