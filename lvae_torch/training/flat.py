"""All trainable parameters of a model as one vector, and its buffers as one vector per dtype.

A deep ladder has a thousand small tensors, so optimizer, EMA, clipping and skipping would launch a thousand kernels
each. These updates are element-wise, so one kernel on one long vector gives the same result.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class FlatParameters:
    """Makes the trainable parameters of ``model`` views of one vector, and their gradients views of its gradient.

    Build it after the model is on its device and in its memory format.
    """

    def __init__(self, model: nn.Module, with_gradient: bool = True) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.parameters = parameters
        """In the order in which they lie in ``vector``."""
        self.vector = nn.Parameter(_joined(parameters))
        if with_gradient:
            self.vector.grad = torch.zeros_like(self.vector)
            for parameter, view in zip(parameters, _views(self.vector.grad, parameters), strict=True):
                parameter.grad = view
        self.buffers = _flat_buffers(model)
        """One vector per dtype; the model's buffers, such as batch norm's running statistics, are views of them."""

    def pieces(self, vector: Tensor) -> list[Tensor]:
        """Views of ``vector``, which has the size of ``self.vector``, shaped and ordered like the parameters."""
        return _views(vector, self.parameters)

    @property
    def gradient(self) -> Tensor:
        """The gradient of all parameters, in their order; zero it in place, because the parameters hold views of it."""
        assert self.vector.grad is not None, "built with_gradient=False"
        return self.vector.grad


def _flat_buffers(model: nn.Module) -> list[Tensor]:
    """Make the buffers in the model's state dict views of one vector per dtype; other buffers are constants."""
    kept = model.state_dict().keys()
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for name, buffer in model.named_buffers():
        if name in kept:
            by_dtype.setdefault(buffer.dtype, []).append(buffer)
    return [_joined(buffers) for buffers in by_dtype.values()]


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Copy all tensors into one vector and make them views of it.

    Tensor objects and their version counters, which autograd checks, are kept.
    """
    first = tensors[0]
    vector = torch.empty(sum(tensor.numel() for tensor in tensors), dtype=first.dtype, device=first.device)
    for tensor, view in zip(tensors, _views(vector, tensors), strict=True):
        view.copy_(tensor.data)
        tensor.data = view
    return vector


def _views(vector: Tensor, like: Iterable[Tensor]) -> list[Tensor]:
    """Consecutive pieces of ``vector`` with the shapes and memory formats of the tensors ``like``."""
    views, offset = [], 0
    for tensor in like:
        views.append(vector.as_strided(tensor.shape, tensor.stride(), offset))
        offset += tensor.numel()
    return views
