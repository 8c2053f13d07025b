"""From raw bytes to what a model sees, on the device that holds them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Preprocess:
    """Raw uint8 batch (b, H, W, C) -> float32 x, (b, C, H, W), in [0, 1].

    Random draws come from torch's global generator, which every step and evaluation batch seeds.
    """

    n_levels: int
    """Levels in the dump."""
    n_bits: int = 8
    binarize: Literal["none", "dynamic", "threshold"] = "none"
    flip: bool = False
    dequantize: bool = False

    @property
    def levels_after(self) -> int:
        """Levels of x."""
        return 2 if self.binarize != "none" else self._kept_levels

    @property
    def _kept_levels(self) -> int:
        return min(self.n_levels, 2**self.n_bits)

    def __call__(self, raw: Tensor, training: bool) -> Tensor:
        pixels = raw.permute(0, 3, 1, 2)  # a view, and channels_last already
        if self._kept_levels < self.n_levels:
            pixels = pixels >> (8 - self.n_bits)
        x = pixels.float()
        if training and self.dequantize and self.binarize == "none":
            x = (x + torch.rand_like(x)) / self._kept_levels
        else:
            x = x / (self._kept_levels - 1)
        if training and self.flip:
            mirrored = torch.rand(x.shape[0], 1, 1, 1, device=x.device) < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
        match self.binarize:
            case "dynamic":
                return (torch.rand_like(x) < x).float()
            case "threshold":
                return (x >= 0.5).float()
        return x
