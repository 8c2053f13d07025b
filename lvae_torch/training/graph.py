"""One CUDA graph for a whole training step: the host replays it, rather than launching ten thousand kernels."""

from collections.abc import Callable, Hashable

import torch

from lvae_torch.data.labelled import Labelled
from lvae_torch.errors import say

WARM_UP = 3
"""Steps taken kernel by kernel before the capture: libraries choose their algorithms, and memory is laid out."""


class GraphedStep:
    """Replays ``step(raw, k)``, step k on a batch, which must be a function of tensors that stay where they are.

    Each step is taken exactly once: the first ones, and those of another shape, as they are; then the step is captured,
    which computes nothing, and replayed. Random numbers are those of the seed at the replay.
    """

    def __init__(self, step: Callable[[Labelled, int], None]) -> None:
        self._step = step
        self._n_eager = 0
        self._is_able = True
        self._captured: tuple[torch.cuda.CUDAGraph, Labelled, Hashable] | None = None

    def forget(self) -> None:
        """Capture again: tensors of the step have moved."""
        self._captured, self._n_eager = None, 0

    def __call__(self, raw: Labelled, step: int, key: Hashable) -> None:
        """Take a step on ``raw``, which the graph gets a copy of.

        Args:
            key: what else the course of the step depends on, such as whether a term of the loss is switched on; where
                it changes the step is captured anew.
        """
        key = key, raw.images.shape, raw.images.dtype
        if self._captured is not None and self._captured[2] != key:
            self.forget()
        if self._captured is None and self._is_able and self._n_eager >= WARM_UP:
            self._captured = self._capture(raw, step, key)
        if self._captured is None:
            self._n_eager += 1
            self._step(raw, step)
            return
        graph, static, _ = self._captured
        static.take(raw)
        graph.replay()

    def _capture(
        self, raw: Labelled, step: int, key: Hashable
    ) -> tuple[torch.cuda.CUDAGraph, Labelled, Hashable] | None:
        graph, static = torch.cuda.CUDAGraph(), raw.clone()
        try:
            # Other threads go on: the watchdog of NCCL, and the loader, which copies the next batch.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._step(static, step)
        except RuntimeError as reason:
            self._is_able = False
            told = str(reason).splitlines()[0]
            say(f"[train] cuda_graph: the step cannot be captured ({told}); it is taken kernel by kernel.")
            return None
        return graph, static, key
