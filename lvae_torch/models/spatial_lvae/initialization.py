"""Data-dependent initialisation as in the spatial LVAE (Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Affine = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def draw_kaiming(model: nn.Module) -> None:
    """Draw Kaiming-normal weights and set zero biases in every affine layer; norms and other parameters stay."""
    for layer in affine_layers(model):
        nn.init.kaiming_normal_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


@torch.no_grad()
def rescale_to_data(
    model: nn.Module, forward: Callable[[], object], scale: float = 0.1, bound: float | None = None
) -> None:
    """Give every output channel of every affine layer mean 0 and std ``scale`` over one batch.

    ``forward`` runs that batch once. Layers are corrected in the order they run, so each one sees corrected inputs.
    A layer with one value a channel, which has no std, stays as it is.

    Args:
        bound: the most that a channel is scaled up or down; None for no bound, as published.
    """
    hooks = [layer.register_forward_hook(_rescale(scale, bound)) for layer in affine_layers(model)]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()


def affine_layers(model: nn.Module) -> list[Affine]:
    return [m for m in model.modules() if isinstance(m, Affine)]


def _rescale(scale: float, bound: float | None) -> Callable[[Affine, tuple[Tensor, ...], Tensor], Tensor]:
    def correct(layer: Affine, _inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
        channel = -1 if isinstance(layer, nn.Linear) else 1
        others = [d for d in range(y.dim()) if d != channel % y.dim()]
        if y.numel() == y.shape[channel]:
            return y
        mean = y.mean(dim=others)
        factor = scale / torch.sqrt(y.var(dim=others) + 1e-5)  # unbiased variance, as published
        if bound is not None:
            factor = factor.clamp(1 / bound, bound)
        if layer.bias is not None:
            layer.bias.copy_((layer.bias - mean) * factor)
        out_dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        layer.weight.mul_(_along(factor, out_dim, layer.weight.dim()))
        return (y - _along(mean, channel, y.dim())) * _along(factor, channel, y.dim())

    return correct


def _along(vector: Tensor, dim: int, n_dims: int) -> Tensor:
    shape = [1] * n_dims
    shape[dim] = -1
    return vector.view(shape)
