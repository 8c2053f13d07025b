"""FLOPs of a model and its memory for the backward pass, measured on tensors without data."""

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
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
SHORT_BLOCK = 8
BLOCK = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else SHORT_BLOCK
"""Channels of a block in the CPU's convolutions, as many numbers as a vector register holds; transposed ones take 8."""


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
        alive = allocations.alive
    assert loss.requires_grad  # keeps the graph alive until here
    return alive


class Allocations(TorchDispatchMode):
    """Every storage made while it is entered, and what PyTorch's kernels hold besides while they work.

    Deep models do the same operations over and over. Each is computed once; where it comes again, its outputs are made
    without being computed. So numbers mean nothing inside, with which a pass takes a fraction of its time.
    """

    def __init__(self, of_card: bool = False) -> None:
        """``of_card``: as a GPU would hold them, whatever the device; its kernels' workspaces are not counted."""
        super().__init__()
        self._of_card = of_card
        self.alive = 0
        """Bytes of those that somebody still holds."""
        self.peak = 0
        """Most bytes that were alive at once."""
        self._made: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._known: dict[Any, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _makes_anew(func):
            is_idle = _changes_first(func) and args[0].is_floating_point()
            return args[0] if is_idle else func(*args, **kwargs)
        key = func, _described(args), *kwargs.items()
        if known := self._known.get(key):
            look, beside = known
            out = _like(look)
        else:
            out = func(*args, **kwargs)
            if func is torch.ops.aten.convolution.default and _is_channels_last(args[0]):
                out = out.to(memory_format=torch.channels_last)  # as with numbers; without them PyTorch forgets it
            if not {s._cdata for s in _storages((out,))}.isdisjoint(s._cdata for s in _storages(args)):
                return out  # a view, of which the schema does not tell
            beside = 0 if self._of_card else scratch(func, args, out)
            self._known[key] = _described(out), beside
        for storage in _storages((out,)):
            self._count(storage)
        self.peak = max(self.peak, self.alive + beside)
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, n_bytes = storage._cdata, storage.nbytes()
        if key in self._made:
            return  # two outputs may be parts of one

        def freed(_: object) -> None:
            self.alive -= n_bytes
            del self._made[key]

        self.alive += n_bytes
        self._made[key] = weakref.ref(storage, freed)


@cache
def _makes_anew(func: Any) -> bool:
    """Whether the outputs of an operation are all new tensors."""
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is None and "Tensor" in str(r.type) for r in returns)


@cache
def _changes_first(func: Any) -> bool:
    """Whether an operation changes the numbers of its first argument, and gives that back."""
    returns = func._schema.returns
    return len(returns) == 1 and returns[0].alias_info is not None and returns[0].alias_info.is_write


class _Look(NamedTuple):
    """What a tensor is, but for its numbers."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


def _described(value: Any) -> Any:
    """``value`` with the look of each tensor in its place, to be a key."""
    if isinstance(value, Tensor):
        return _Look(value.shape, value.stride(), value.dtype, value.device)
    return tuple([_described(each) for each in value]) if isinstance(value, list | tuple) else value


def _like(described: Any) -> Any:
    if isinstance(described, _Look):
        shape, stride = described.shape, described.stride
        out = torch.empty_strided(shape, stride, dtype=described.dtype, device=described.device)
        return out if out.is_floating_point() else out.zero_()  # an index that there is
    return tuple(map(_like, described)) if isinstance(described, tuple) else described


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
            return 0 if _is_channels_last(x) else _in_blocks(grad_out) + _input_in_blocks(x, COLOURS)
        case "_log_softmax" | "logsumexp" | "native_batch_norm_backward":
            return int(args[0].nbytes)
        case "upsample_nearest2d" | "upsample_bilinear2d":
            return int(args[0].nbytes + out.nbytes)
        case _:
            return 0


def _of_convolution(x: Tensor, weight: Tensor, out: Tensor, is_transposed: bool) -> int:
    if _is_channels_last(x):
        return 0
    if is_transposed:
        return 2 * _in_blocks(out, SHORT_BLOCK)
    blocks = _in_blocks(out)
    copied = 0 if x.is_contiguous() else x.nbytes
    return copied + max(_input_in_blocks(x, BLOCK // 2) + weight.nbytes + blocks - out.nbytes, blocks)


def _input_in_blocks(x: Tensor, few: int) -> int:
    return _in_blocks(x) if x.shape[1] > few else 0  # few channels are read as they are


def _is_channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _in_blocks(x: Tensor, block: int = BLOCK) -> int:
    n, channels, *image = x.shape
    return n * math.ceil(channels / block) * block * math.prod(image) * x.element_size()


def _storages(values: Iterable[Any]) -> Iterator[torch.UntypedStorage]:
    for value in values:
        if isinstance(value, Tensor):
            yield value.untyped_storage()
        elif isinstance(value, list | tuple):
            yield from _storages(value)
