"""The loader: the right bytes in the right order, a bounded number of them, and a thread that ends."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lvae_torch.data.dump import Dump, ImageSplit, Layout
from lvae_torch.data.loader import DEPTH, training_batches
from lvae_torch.data.order import TrainingOrder
from lvae_torch.data.writing import DumpWriter
from lvae_torch.distributed.processes import Processes

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> ImageSplit:
    """100 images of 2x2 in several shards; the first pixel tells which image it is."""
    dumps = tmp_path_factory.mktemp("dumps")
    images = np.random.default_rng(0).integers(0, 256, (100, 2, 2, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(100)
    with DumpWriter(dumps, "x", Layout((1, 2, 2), 256), {}, shard_bytes=4 * 33) as writer:
        writer.add("train", images)
    return Dump.open(dumps, "x").split("train")


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "gather"]


def loaded(split: ImageSplit, n: int, first: int = 0, processes: Processes = ALONE, on_device: bool = False) -> Tensor:
    order = TrainingOrder(len(split), 12, seed=5)
    with training_batches(split, order, processes, first, on_device) as batches:
        return torch.stack([batch.images for batch in islice(batches, n)])


@pytest.mark.parametrize("on_device", [False, True])
def test_batches_are_those_of_the_order(split: ImageSplit, on_device: bool) -> None:
    order = TrainingOrder(100, 12, seed=5)
    expected = torch.stack([split.gather(order.batch(step)) for step in range(20)])  # more than two epochs
    batches = loaded(split, 20, on_device=on_device)
    assert batches.dtype == torch.uint8
    assert torch.equal(batches, expected)
    assert np.array_equal(batches[:, :, 0, 0, 0], np.stack([order.batch(step) for step in range(20)]))


@pytest.mark.parametrize("on_device", [False, True])
def test_it_begins_at_any_step(split: ImageSplit, on_device: bool) -> None:
    assert torch.equal(loaded(split, 6, first=13, on_device=on_device), loaded(split, 19)[13:])


@pytest.mark.parametrize("on_device", [False, True])
def test_ranks_have_the_global_batch_among_them(split: ImageSplit, on_device: bool) -> None:
    parts = [loaded(split, 9, processes=Processes(rank, 3, CPU), on_device=on_device) for rank in range(3)]
    assert [part.shape[1] for part in parts] == [4, 4, 4]
    together = torch.cat(parts, dim=1)[..., 0, 0, 0].sort(dim=1).values
    assert torch.equal(together, loaded(split, 9)[..., 0, 0, 0].sort(dim=1).values)


@dataclass(frozen=True)
class Failing(ImageSplit):
    """Counts what is gathered, and fails at the third batch if told to."""

    fails: bool = True

    def gather(self, indices: np.ndarray) -> Tensor:
        GATHERED.append(len(indices))
        if self.fails and len(GATHERED) == 3:
            raise OSError("the disk went away")
        return super().gather(indices)


GATHERED: list[int] = []


@pytest.fixture
def counted() -> list[int]:
    GATHERED.clear()
    return GATHERED


def test_an_error_of_the_thread_reaches_the_consumer(split: ImageSplit, counted: list[int]) -> None:
    failing = Failing(split.name, split.arrays)
    with training_batches(failing, TrainingOrder(100, 12, 5), ALONE, 0) as batches:
        assert [len(next(batches)), len(next(batches))] == [12, 12]
        with pytest.raises(OSError, match="the disk went away"):
            next(batches)


def test_it_does_not_run_far_ahead(split: ImageSplit, counted: list[int]) -> None:
    slow = Failing(split.name, split.arrays, fails=False)
    with training_batches(slow, TrainingOrder(100, 12, 5), ALONE, 0) as batches:
        for taken in range(1, 4):
            next(batches)
            time.sleep(0.15)
            assert len(counted) <= taken + DEPTH + 1  # those waiting, and one in the thread's hand


def test_it_ends_with_an_error_of_the_consumer_too(split: ImageSplit) -> None:
    order = TrainingOrder(100, 12, 5)
    with pytest.raises(KeyError), training_batches(split, order, ALONE, 0) as batches:
        next(batches)
        raise KeyError
    with training_batches(split, order, ALONE, 0):  # never asked
        pass


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ImageSplit:
    """100,000 images 28x28 (78 MB) in two shards."""
    dumps = tmp_path_factory.mktemp("large")
    images = np.random.default_rng(0).integers(0, 256, (20_000, 28, 28, 1), dtype=np.uint8)
    with DumpWriter(dumps, "x", Layout((1, 28, 28), 256), {}) as writer:
        for _ in range(5):
            writer.add("train", images)
    return Dump.open(dumps, "x").split("train")


def python_work(work: Callable[[], object]) -> int:
    """Instructions of Python that are carried out: the same each time, on whatever machine."""
    n = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal n
        frame.f_trace_opcodes = True
        n += event == "opcode"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return n


def test_gathering_takes_no_python_work_for_each_image(large: ImageSplit) -> None:
    """So that a core gathers hundreds of thousands of digits a second."""
    few, many = (np.arange(len(large) - 1, 0, -step) for step in (9001, 97))  # 12 and 1031, of both files
    large.gather(few)  # what is made once
    assert 0 < python_work(lambda: large.gather(few)) == python_work(lambda: large.gather(many)) < 1000


def anonymous_memory() -> int:
    """Bytes of this process that are not mapped from files."""
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("needs /proc")
    fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def test_memory_does_not_grow_with_what_was_read(large: ImageSplit) -> None:
    order = TrainingOrder(len(large), 128, seed=0)
    with training_batches(large, order, ALONE, 0) as batches:
        next(batches)
        before = anonymous_memory()
        for _ in range(order.steps_per_epoch - 1):
            next(batches)
        assert anonymous_memory() - before < 8 * 2**20  # of 78 MB that were read


def test_a_gpu_gets_the_same_bytes(split: ImageSplit) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    gpu = Processes(0, 1, torch.device("cuda", 0))
    for on_device in (False, True):
        batches = loaded(split, 20, processes=gpu, on_device=on_device)
        assert batches.is_cuda
        assert torch.equal(batches.cpu(), loaded(split, 20))
