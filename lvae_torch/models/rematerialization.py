"""Activation checkpointing: keep only the input of a block, and recompute its activations in the backward pass."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def rematerialize(model: nn.Module, *block_types: type[nn.Module]) -> None:
    """Make every block of these types in ``model`` recompute its activations.

    Values, gradients and random draws stay the same. The blocks must not be nested.
    """
    for block in model.modules():
        if isinstance(block, block_types):
            forward = partial(_checkpointed, block, block.forward)
            # A compiled recomputation would count a batch twice; the layers of such a block are compiled alone.
            block.forward = torch.compiler.disable(forward, recursive=False) if _norms(block) else forward


def _checkpointed(block: nn.Module, forward, *inputs: Any) -> Any:  # type: ignore[no-untyped-def]
    if not (block.training and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)):
        return forward(*inputs)
    if torch.compiler.is_compiling():  # it takes no contexts, and needs none: there are no statistics
        return checkpoint(forward, *inputs, use_reentrant=False)
    contexts: partial[tuple[AbstractContextManager[None], AbstractContextManager[None]]] = partial(_contexts, block)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


def _norms(block: nn.Module) -> list[_BatchNorm]:
    return [m for m in block.modules() if isinstance(m, _BatchNorm)]


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _frozen_statistics(block)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Keep the running statistics unchanged while a batch runs for the second time."""
    norms = _norms(block)
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()  # only the clone counts, and it is dropped
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
