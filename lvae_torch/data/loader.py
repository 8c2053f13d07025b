"""Training batches on the device; one thread gathers them ahead of the step."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from lvae_torch.data.dump import ImageSplit
from lvae_torch.data.labelled import Labelled
from lvae_torch.data.order import TrainingOrder, share
from lvae_torch.distributed.processes import Processes

DEPTH = 2  # batches gathered ahead


@contextmanager
def training_batches(
    split: ImageSplit,
    order: TrainingOrder,
    processes: Processes,
    first_step: int,
    on_device: bool = False,
) -> Iterator[Iterator[Labelled]]:
    """Give an endless iterator of this rank's raw batches from ``first_step`` on, (b, H, W, C) on its device.

    ``on_device`` keeps the whole split in the device's memory; the batches are the same.
    """
    if on_device:
        yield _resident(split, order, processes, first_step)
        return
    ready: queue.Queue[Labelled | BaseException] = queue.Queue(maxsize=DEPTH)
    stopped = threading.Event()
    arguments = (split, order, processes, first_step, ready, stopped)
    thread = threading.Thread(target=_gather, args=arguments, name="gather", daemon=True)
    thread.start()
    try:
        yield _delivered(ready, processes.device)
    finally:
        stopped.set()
        thread.join()


def _gather(
    split: ImageSplit,
    order: TrainingOrder,
    processes: Processes,
    step: int,
    ready: "queue.Queue[Labelled | BaseException]",
    stopped: threading.Event,
) -> None:
    try:
        if processes.device.type == "cuda":
            torch.cuda.set_device(processes.device)  # a new thread starts on GPU 0: pinning would open it
        while not stopped.is_set():
            batch = _read(split, share(order.batch(step), processes.rank, processes.world))
            _put(ready, batch.pinned() if processes.device.type == "cuda" else batch, stopped)
            step += 1
    except BaseException as error:  # the consumer raises it
        _put(ready, error, stopped)


def _read(split: ImageSplit, indices: np.ndarray) -> Labelled:
    return Labelled(split.gather(indices), split.labels_of(indices))


def _put(
    ready: "queue.Queue[Labelled | BaseException]", item: Labelled | BaseException, stopped: threading.Event
) -> None:
    while not stopped.is_set():
        try:
            return ready.put(item, timeout=0.1)
        except queue.Full:
            continue


def _delivered(ready: "queue.Queue[Labelled | BaseException]", device: torch.device) -> Iterator[Labelled]:
    while True:
        item = ready.get()
        if isinstance(item, BaseException):
            raise item
        yield item.to(device)


def _resident(split: ImageSplit, order: TrainingOrder, processes: Processes, step: int) -> Iterator[Labelled]:
    whole = _read(split, np.arange(len(split))).to(processes.device)
    while True:
        indices = torch.from_numpy(share(order.batch(step), processes.rank, processes.world).copy())
        yield whole.at(indices.to(processes.device, non_blocking=True))
        step += 1
