"""All trainable parameters of a model as one vector, and what else it keeps as one vector of each type.

A deep ladder has a thousand small tensors; one step of optimizer, EMA, clipping and skipping then costs a
thousand kernel launches each. Every such update is element-wise, so it does the same to one long vector.
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
        self._parameters = parameters
        self.vector = nn.Parameter(_joined(parameters))
        if with_gradient:
            self.vector.grad = torch.zeros_like(self.vector)
            for parameter, view in zip(parameters, _views(self.vector.grad, parameters), strict=True):
                parameter.grad = view
        self.buffers = _flat_buffers(model)
        """Batch norm's running statistics and the like: one vector of each dtype, which the model's are views of."""

    def pieces(self, vector: Tensor) -> list[Tensor]:
        """``vector``, one number per trainable one, as views shaped like the parameters, in their order."""
        return _views(vector, self._parameters)

    @property
    def gradient(self) -> Tensor:
        """The gradient of all parameters, in their order; zero it in place, so that they keep their views."""
        assert self.vector.grad is not None, "built with_gradient=False"
        return self.vector.grad


def _flat_buffers(model: nn.Module) -> list[Tensor]:
    """Makes the buffers of ``model`` views of one vector of each dtype; constants, which no state has, stay alone."""
    kept = model.state_dict().keys()
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for name, buffer in model.named_buffers():
        if name in kept:
            by_dtype.setdefault(buffer.dtype, []).append(buffer)
    return [_joined(buffers) for buffers in by_dtype.values()]


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """One vector of what all hold, which they are views of from now on.

    Each stays the tensor it was, with a count of its own of what is written into it, which the backward pass compares.
    """
    first = tensors[0]
    vector = torch.empty(sum(tensor.numel() for tensor in tensors), dtype=first.dtype, device=first.device)
    for tensor, view in zip(tensors, _views(vector, tensors), strict=True):
        view.copy_(tensor.data)
        tensor.data = view
    return vector


def _views(vector: Tensor, like: Iterable[Tensor]) -> list[Tensor]:
    """Consecutive pieces of ``vector``, each with the shape and memory format of its model tensor."""
    views, offset = [], 0
    for tensor in like:
        views.append(vector.as_strided(tensor.shape, tensor.stride(), offset))
        offset += tensor.numel()
    return views
