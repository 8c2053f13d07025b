"""Small feature extractors as TorchScript files."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


class Tiny(nn.Module):
    """Features (B, 12) and logits (B, 5) of pixels uint8 (B, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.relu(self.conv(pixels.float() / 127.5 - 1)).mean(dim=[2, 3])
        return features, 20 * self.head(features)


class Features(Tiny):
    """The same without logits."""

    def forward(self, pixels: Tensor) -> Tensor:  # type: ignore[override]
        return torch.relu(self.conv(pixels.float() / 127.5 - 1)).mean(dim=[2, 3])


class Floats(Tiny):
    """Takes no bytes."""

    def forward(self, pixels: Tensor) -> Tensor:  # type: ignore[override]
        return self.conv(pixels).flatten(1)


class Broken(Tiny):
    def forward(self, pixels: Tensor) -> Tensor:  # type: ignore[override]
        return torch.full((len(pixels), 4), float("nan"))


class Scalar(Tiny):
    def forward(self, pixels: Tensor) -> Tensor:  # type: ignore[override]
        return pixels.float().mean()


def script(path: Path, network: nn.Module) -> Path:
    """Write ``network`` as a TorchScript file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network.eval()).save(str(path))
    return path
