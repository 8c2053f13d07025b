"""Training batches on the device, gathered ahead by one thread."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lvae_torch.data.dump import ImageSplit
from lvae_torch.data.order import TrainingOrder, share
from lvae_torch.data.order import spread as all_indices

DEPTH = 2  # batches gathered ahead


@contextmanager
def training_batches(
    split: ImageSplit,
    order: TrainingOrder,
    rank: int,
    world: int,
    first_step: int,
    device: torch.device,
    on_device: bool = False,
) -> Iterator[Iterator[Tensor]]:
    """An endless iterator of this rank's raw batches from ``first_step`` on, uint8 (b, H, W, C) on ``device``.

    ``on_device`` keeps the whole split in the device's memory; the batches are the same.
    """
    if on_device:
        yield _resident(split, order, rank, world, first_step, device)
        return
    ready: queue.Queue[Tensor | BaseException] = queue.Queue(maxsize=DEPTH)
    stopped = threading.Event()
    arguments = (split, order, rank, world, first_step, device.type == "cuda", ready, stopped)
    thread = threading.Thread(target=_gather, args=arguments, name="gather", daemon=True)
    thread.start()
    try:
        yield _delivered(ready, device)
    finally:
        stopped.set()
        thread.join()


def _gather(
    split: ImageSplit,
    order: TrainingOrder,
    rank: int,
    world: int,
    step: int,
    pin: bool,
    ready: "queue.Queue[Tensor | BaseException]",
    stopped: threading.Event,
) -> None:
    try:
        while not stopped.is_set():
            batch = split.gather(share(order.batch(step), rank, world))
            _put(ready, batch.pin_memory() if pin else batch, stopped)
            step += 1
    except BaseException as error:  # handed to the consumer, whose problem it is
        _put(ready, error, stopped)


def _put(
    ready: "queue.Queue[Tensor | BaseException]", item: Tensor | BaseException, stopped: threading.Event
) -> None:
    while not stopped.is_set():
        try:
            return ready.put(item, timeout=0.1)
        except queue.Full:
            continue


def _delivered(ready: "queue.Queue[Tensor | BaseException]", device: torch.device) -> Iterator[Tensor]:
    while True:
        item = ready.get()
        if isinstance(item, BaseException):
            raise item
        yield item.to(device, non_blocking=True)


def _resident(
    split: ImageSplit, order: TrainingOrder, rank: int, world: int, step: int, device: torch.device
) -> Iterator[Tensor]:
    images = split.gather(all_indices(len(split), 0)).to(device)
    while True:
        indices = torch.from_numpy(share(order.batch(step), rank, world).copy())
        yield images[indices.to(device, non_blocking=True)]
        step += 1
