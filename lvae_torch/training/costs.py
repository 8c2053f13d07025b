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
from lvae_torch.models.layout import is_channels_last
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


Known = dict[Any, tuple[Any, int]]
"""What operations make of tensors of these looks, and the bytes that their kernels hold besides."""


class Allocations(TorchDispatchMode):
    """Every storage made while it is entered, and what PyTorch's kernels hold besides while they work.

    Outputs are made without being computed, and what an operation makes is found out once: deep models do the same over
    and over. So numbers mean nothing inside, a pass takes a fraction of its time, and nobody touches what is allocated.

    Args:
        weights: what is there before; what is made of nothing else takes as much for any number of images.
        known: what operations make, of other passes; those of this one are added.
        of_card: as a GPU would hold them, whatever the device; its kernels' workspaces are not counted.
    """

    def __init__(self, weights: Iterable[Tensor] = (), known: Known | None = None, of_card: bool = False) -> None:
        super().__init__()
        self._of_card = of_card
        self.alive = 0
        """Bytes of those that somebody still holds."""
        self.peak = 0
        """Most bytes that were alive at once."""
        self.fixed_at_peak = 0
        """Those among them that were made of weights alone: masked, or in half precision."""
        self._fixed = 0
        self._weights = {storage._cdata for storage in _storages(weights)}
        self._made: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._known: Known = {} if known is None else known

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _makes_anew(func):
            is_idle = _only_changes(func) and next(_tensors(args)).is_floating_point()
            return kwargs.get("out", args[0] if func._schema.returns else None) if is_idle else func(*args, **kwargs)
        key = func, _described(args), *kwargs.items()
        if known := self._known.get(key):
            look, beside = known
            out = _like(look)
        else:
            out = _without_numbers(func, args, kwargs)
            if not {s._cdata for s in _storages((out,))}.isdisjoint(s._cdata for s in _storages(args)):
                return out  # a view, of which the schema does not tell
            beside = 0 if self._of_card else scratch(func, args, out)
            self._known[key] = _described(out), beside
        is_fixed = self._are_weights(args) and not _is_new_of_shape(func)
        for storage in _storages((out,)):
            self._count(storage, is_fixed)
        if self.alive + beside > self.peak:
            self.peak, self.fixed_at_peak = self.alive + beside, self._fixed
        return out

    def _are_weights(self, args: Any) -> bool:
        """Whether these are weights, or were made of them alone, and not repeated for each image."""
        tensors = list(_tensors(args))
        return bool(tensors) and all(
            t.untyped_storage()._cdata in self._weights and 0 not in t.stride() for t in tensors
        )

    def _count(self, storage: torch.UntypedStorage, is_fixed: bool) -> None:
        key, n_bytes = storage._cdata, storage.nbytes()
        if key in self._made:
            return  # two outputs may be parts of one
        fixed = n_bytes if is_fixed else 0

        def freed(_: object) -> None:
            self.alive -= n_bytes
            self._fixed -= fixed
            self._weights.discard(key)
            del self._made[key]

        self.alive += n_bytes
        self._fixed += fixed
        if is_fixed:
            self._weights.add(key)
        self._made[key] = weakref.ref(storage, freed)


def _without_numbers(func: Any, args: Any, kwargs: Any) -> Any:
    """Tensors as an operation makes them, but for their numbers."""
    if (like := next(_tensors(args), None)) is None:
        return func(*args, **kwargs)
    device = kwargs.get("device") or like.device
    out = func(*_like(_described(args), "meta"), **{key: "meta" if key == "device" else kwargs[key] for key in kwargs})
    if func is torch.ops.aten.convolution.default and any(map(is_channels_last, args[:2])):
        out = out.to(memory_format=torch.channels_last)  # as with numbers; without them PyTorch forgets it
    return _like(_described(out), device)


@cache
def _makes_anew(func: Any) -> bool:
    """Whether the outputs of an operation are all new tensors."""
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is None and "Tensor" in str(r.type) for r in returns)


@cache
def _is_new_of_shape(func: Any) -> bool:
    """Whether an operation makes a tensor of the shape that it is told, whatever that of its argument."""
    return str(func.overloadpacket.__name__).startswith("new_")


@cache
def _only_changes(func: Any) -> bool:
    """Whether an operation changes the numbers of an argument, and gives back that or nothing."""
    returns = func._schema.returns
    changed = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return len(changed) == 1 and all(r.alias_info is not None and r.alias_info.is_write for r in returns)


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


def _like(described: Any, device: torch.device | str | None = None) -> Any:
    """The inverse of ``_described``, on ``device`` or each where it was."""
    if isinstance(described, _Look):
        shape, stride = described.shape, described.stride
        out = torch.empty_strided(shape, stride, dtype=described.dtype, device=device or described.device)
        return out if out.is_floating_point() else out.zero_()  # an index that there is
    return tuple(_like(each, device) for each in described) if isinstance(described, tuple) else described


def scratch(func: Any, args: Any, out: Any) -> int:
    """Bytes that the CPU's kernel of an operation holds beside its inputs and outputs while it works.

    Found with PyTorch's profiler: convolutions copy images into blocks of channels, and the result back; other kernels
    make what they work on contiguous.
    """
    match func.overloadpacket.__name__:
        case "convolution":
            return _of_convolution(args[0], args[1], out, is_transposed=args[6])
        case "convolution_backward":
            grad_out, x, weight = args[:3]
            is_turned = is_channels_last(x) or is_channels_last(weight)
            return 0 if is_turned else _in_blocks(grad_out) + _input_in_blocks(x, COLOURS)
        case "_log_softmax" | "logsumexp" | "native_batch_norm_backward":
            return int(args[0].nbytes)
        case "upsample_nearest2d" | "upsample_bilinear2d":
            return int(args[0].nbytes + out.nbytes)
        case _:
            return 0


def _of_convolution(x: Tensor, weight: Tensor, out: Tensor, is_transposed: bool) -> int:
    if is_channels_last(x):
        return 0
    if is_channels_last(weight):
        return x.nbytes  # turned
    if is_transposed:
        return 2 * _in_blocks(out, SHORT_BLOCK)
    blocks = _in_blocks(out)
    copied = 0 if x.is_contiguous() else x.nbytes
    return copied + max(_input_in_blocks(x, BLOCK // 2) + weight.nbytes + blocks - out.nbytes, blocks)


def _input_in_blocks(x: Tensor, few: int) -> int:
    return _in_blocks(x) if x.shape[1] > few else 0  # few channels are read as they are


def _in_blocks(x: Tensor, block: int = BLOCK) -> int:
    n, channels, *image = x.shape
    return n * math.ceil(channels / block) * block * math.prod(image) * x.element_size()


def _storages(values: Iterable[Any]) -> Iterator[torch.UntypedStorage]:
    return (tensor.untyped_storage() for tensor in _tensors(values))


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
