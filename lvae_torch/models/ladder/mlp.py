"""Fully-connected blocks of the ladder VAE. Shapes: B batch, D inputs, W width."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

BATCH_NORM_MOMENTUM = 0.05  # about the last 20 batches: models score as well as with re-estimated statistics


@dataclass(frozen=True)
class DenseStyle:
    """Options that all hidden layers of a fully-connected model share."""

    nonlinearity: Literal["leakyrelu", "tanh"] = "leakyrelu"
    leak: float = 0.1
    """Slope of leakyrelu below zero; 0 gives a ReLU."""
    use_batch_norm: bool = True

    def hidden(self, n_in: int, width: int) -> list[nn.Module]:
        """Linear, batch norm if used, nonlinearity: (B, n_in) -> (B, width)."""
        gain = nn.init.calculate_gain("leaky_relu" if self.nonlinearity == "leakyrelu" else "tanh", self.leak)
        return [*self.linear(n_in, width, gain), self._activation()]

    def linear(self, n_in: int, n_out: int, gain: float = 1.0, bias: Tensor | None = None) -> list[nn.Module]:
        """Linear, batch norm if used: (B, n_in) -> (B, n_out).

        ``gain`` scales the Glorot-normal weights; ``bias``, (n_out,), is the initial bias without batch norm.
        """
        layer = nn.Linear(n_in, n_out, bias=not self.use_batch_norm)  # batch norm cancels this bias and adds its own
        nn.init.xavier_normal_(layer.weight, gain)
        if self.use_batch_norm:
            return [layer, nn.BatchNorm1d(n_out, momentum=BATCH_NORM_MOMENTUM)]
        layer.bias.data.copy_(torch.zeros(n_out) if bias is None else bias)
        return [layer]

    def _activation(self) -> nn.Module:
        # In place is safe: no layer before it needs its own output in the backward pass.
        return nn.LeakyReLU(self.leak, inplace=True) if self.nonlinearity == "leakyrelu" else nn.Tanh()


class MLP(nn.Sequential):
    """Two hidden layers of one width: (B, D) -> (B, W)."""

    def __init__(self, style: DenseStyle, n_in: int, width: int) -> None:
        super().__init__(*style.hidden(n_in, width), *style.hidden(width, width))
