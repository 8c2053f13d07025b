"""Where noise is drawn: from torch's own generator, or from one stream for each image of a batch.

Inside ``image_streams`` what image k draws depends on its own stream alone, not on how many images are drawn with it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_streams: list[torch.Generator] = []
Draw = Callable[..., Tensor]


@contextmanager
def image_streams(seeds: Sequence[int], device: torch.device) -> Iterator[None]:
    """Inside, the noise of a batch of ``len(seeds)`` images on ``device`` comes from a generator for each.

    Args:
        seeds: below 2^63.
    """
    before = tuple(_streams)
    _streams[:] = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    try:
        yield
    finally:
        _streams[:] = before


def normal_like(like: Tensor) -> Tensor:
    """Standard normal noise of the shape of ``like``, (B, ...)."""
    return _of_each(torch.randn, like) if _streams else torch.randn_like(like)


def uniform_like(like: Tensor) -> Tensor:
    """Noise that is uniform on [0, 1), of the shape of ``like``, (B, ...)."""
    return _of_each(torch.rand, like) if _streams else torch.rand_like(like)


def integers_like(like: Tensor, n: int) -> Tensor:
    """Whole numbers from 0 to n - 1, all as likely, int64, of the shape of ``like``, (B, ...)."""
    if not _streams:
        return torch.randint_like(like, n, dtype=torch.int64)
    return torch.stack([torch.randint(n, like.shape[1:], generator=g, device=like.device) for g in _of(like)])


def _of_each(draw: Draw, like: Tensor) -> Tensor:
    kind = {"dtype": like.dtype, "device": like.device}
    return torch.stack([draw(like.shape[1:], generator=generator, **kind) for generator in _of(like)])


def _of(like: Tensor) -> list[torch.Generator]:
    assert len(_streams) == len(like), f"noise for {len(like)} images from {len(_streams)} streams"
    return _streams
