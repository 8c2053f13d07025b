"""FLOPs of a model and its memory for the backward pass, measured on tensors without data."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lvae_torch.data.shapes import ImageShape
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.models.contract import Model
from lvae_torch.models.sources import posterior_sample

PRECISIONS = ("float32", "bfloat16")
Switches = tuple[bool, str]
"""[train] activation_checkpointing and precision."""
COUNTED_BATCH = 2
COLOURS = 3
BLOCK = 8
"""Channels of a block in the CPU's convolutions."""


def flops_per_image(model: Model, image_shape: ImageShape) -> tuple[int, int]:
    """FLOP (2 per multiply-add) of convolutions and matrix products: forward alone, and forward with backward.

    Args:
        model: a model on the meta device.
    """
    model.train()
    x = torch.empty(COUNTED_BATCH, *image_shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        terms = elbo_terms(x, model(x, model.of_any_class(posterior_sample, len(x))))
        forward = counter.get_total_flops()
        terms.nelbo.mean().backward()
    return forward // COUNTED_BATCH, counter.get_total_flops() // COUNTED_BATCH


def kept_for_backward(build: Callable[[], Model], image_shape: ImageShape) -> dict[Switches, int]:
    """Bytes per image that stay alive after the forward pass, for each setting of the switches."""
    kept: dict[Switches, int] = {}
    with FakeTensorMode():  # tensors without data; unlike on the meta device, autocast works
        model = build().train()
        for activation_checkpointing in (False, True):
            if activation_checkpointing:
                model.rematerialize()
            for precision in PRECISIONS:
                one = _alive(model, torch.empty(1, *image_shape), precision)
                if precision != "float32":  # subtract the half-precision weights, which are kept once
                    one = _alive(model, torch.empty(2, *image_shape), precision) - one
                kept[activation_checkpointing, precision] = one
    return kept


def _alive(model: Model, x: Tensor, precision: str) -> int:
    half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    with Allocations() as allocations, half:
        loss = elbo_terms(x, model(x, model.of_any_class(posterior_sample, len(x)))).nelbo.mean()
        alive = allocations.alive()
    assert loss.requires_grad  # keeps the graph alive until here
    return alive


class Allocations(TorchDispatchMode):
    """Every storage made while it is entered, and what PyTorch's kernels hold besides while they work."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        """Most bytes that were alive at once, to 1 %."""
        self._at_most = 0  # alive, if nothing had been freed since it was counted
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}
        self._given: set[int] = set()  # weights and images; views of them are not new storages

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._given |= {s._cdata for s in _storages((args, kwargs)) if s._cdata not in self._made}
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default and _is_channels_last(args[0]):
            out = out.to(memory_format=torch.channels_last)  # as with numbers; without them PyTorch forgets it
        for storage in _storages(out):
            if storage._cdata not in self._given:
                self._made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                self._at_most += storage.nbytes()
        beside = scratch(func, args, out)
        if self._at_most + beside > 1.01 * self.peak:  # looking at all of them after each operation would take minutes
            self._at_most = self.alive()
            self.peak = max(self.peak, self._at_most + beside)
        return out

    def alive(self) -> int:
        """Bytes of those that somebody still holds."""
        self._made = {key: made for key, made in self._made.items() if not made[0].expired()}
        return sum(n_bytes for storage, n_bytes in self._made.values() if not storage.expired())


def scratch(func: Any, args: Any, out: Any) -> int:
    """Bytes that the CPU's kernel of an operation holds beside its inputs and outputs while it works.

    Found with PyTorch's profiler: convolutions copy images into blocks of channels, and the result back; other kernels
    make what they work on contiguous.
    """
    match func.overloadpacket.__name__:
        case "convolution":
            return _of_convolution(args[0], args[1], out, is_transposed=args[6])
        case "convolution_backward":
            grad_out, x = args[:2]
            return 0 if _is_channels_last(x) else _in_blocks(grad_out) + _input_in_blocks(x)
        case "_log_softmax" | "logsumexp" | "native_batch_norm_backward":
            return int(args[0].nbytes)
        case "upsample_nearest2d" | "upsample_bilinear2d":
            return int(args[0].nbytes + out.nbytes)
        case _:
            return 0


def _of_convolution(x: Tensor, weight: Tensor, out: Tensor, is_transposed: bool) -> int:
    if _is_channels_last(x):
        return 0
    blocks = _in_blocks(out)
    if is_transposed:
        return 2 * blocks
    copied = 0 if x.is_contiguous() else x.nbytes
    return copied + max(_input_in_blocks(x) + weight.nbytes + blocks - out.nbytes, blocks)


def _input_in_blocks(x: Tensor) -> int:
    return _in_blocks(x) if x.shape[1] > COLOURS else 0  # pictures are read as they are


def _is_channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _in_blocks(x: Tensor) -> int:
    n, channels, *image = x.shape
    return n * math.ceil(channels / BLOCK) * BLOCK * math.prod(image) * x.element_size()


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]
