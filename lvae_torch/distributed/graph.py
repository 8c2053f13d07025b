"""Work on a card as one CUDA graph: the host replays it, rather than launching ten thousand kernels."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from lvae_torch.errors import say

WARM_UP = 3
"""Times that work is done kernel by kernel before the capture: libraries choose algorithms, and memory is laid out."""
Inputs = tuple[Tensor | None, ...]
Outputs = dict[str, Tensor]
Key = TypeVar("Key", bound=Hashable)


class Graphed(Generic[Key]):
    """Replays ``work(inputs, key)``, which must be a function of tensors that stay where they are.

    It is done exactly once each time: the first times as it is; then it is captured, which computes nothing, and
    replayed. Random numbers are those of the seed at the replay.
    """

    def __init__(self, work: Callable[[Inputs, Key], Outputs], what: str) -> None:
        """``what`` names the work where it cannot be captured."""
        self._work, self._what = work, what
        self._form: Hashable = None
        self._n_eager = 0
        self._is_able = True
        self._captured: tuple[torch.cuda.CUDAGraph, Inputs, Outputs] | None = None

    def forget(self) -> None:
        """Capture again: tensors that the work uses have moved, or it takes another course."""
        self._form, self._captured, self._n_eager = None, None, 0

    def __call__(self, inputs: Inputs, key: Key) -> Outputs:
        """Do the work on ``inputs``, which the graph gets a copy of.

        Args:
            key: what else the work depends on. Only the first key and form of the inputs are captured; others, such as
                the rest of a split, are worked on as they are.
        Returns:
            Tensors of its own: what a graph writes, its next replay overwrites.
        """
        form = key, tuple(None if tensor is None else (tensor.shape, tensor.dtype) for tensor in inputs)
        if self._form is None:
            self._form = form
        if form != self._form:
            return self._work(inputs, key)
        if self._captured is None and self._is_able and self._n_eager >= WARM_UP:
            self._captured = self._capture(inputs, key)
        if self._captured is None:
            self._n_eager += 1
            return self._work(inputs, key)
        graph, own, written = self._captured
        for ours, given in zip(own, inputs, strict=True):
            if ours is not None and given is not None:
                ours.copy_(given, non_blocking=True)
        graph.replay()
        return {name: tensor.clone() for name, tensor in written.items()}

    def _capture(self, inputs: Inputs, key: Key) -> tuple[torch.cuda.CUDAGraph, Inputs, Outputs] | None:
        graph, own = torch.cuda.CUDAGraph(), tuple(None if tensor is None else tensor.clone() for tensor in inputs)
        try:
            # Other threads go on: the watchdog of NCCL, and the loader, which copies the next batch.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                written = self._work(own, key)
        except RuntimeError as reason:
            self._is_able = False
            told = str(reason).splitlines()[0]
            say(f"[train] cuda_graph: {self._what} cannot be captured ({told}); it is done kernel by kernel.")
            return None
        return graph, own, written
