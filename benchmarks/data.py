"""How fast images come from dumps, with how much memory, and how fast procedural ones are made.

python -m benchmarks.data

Times are processor seconds of one core, from a warm page cache; memory is what the process itself holds (not the
mapped files, which the system drops when it needs the room).
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from data_scripts.multi_object import coloured_sprites, draw_scenes, rendered_in_parts
from lvae_torch.data.dump import Dump, ImageSplit, Layout
from lvae_torch.data.loader import training_batches
from lvae_torch.data.order import TrainingOrder
from lvae_torch.data.writing import DumpWriter
from lvae_torch.distributed.processes import Processes

BATCH = 128
SETS = {"28x28": ((1, 28, 28), 200_000), "32x32x3": ((3, 32, 32), 100_000), "256x256x3": ((3, 256, 256), 1500)}
N_SCENES = 20_000
ROW = "{:<34} {:>12} {:>10} {:>14}"


def random_dump(dumps: Path, name: str, shape: tuple[int, int, int], n: int) -> ImageSplit:
    channels, height, width = shape
    part = np.random.default_rng(0).integers(0, 256, (n // 10, height, width, channels), dtype=np.uint8)
    with DumpWriter(dumps, name, Layout(shape, 256), {}) as writer:
        for _ in range(10):
            writer.add("train", part)
    return Dump.open(dumps, name).split("train")


def gathered(split: ImageSplit) -> Iterator[int]:
    """One epoch by the calling thread alone."""
    order = TrainingOrder(len(split), BATCH, seed=0)
    for step in range(order.steps_per_epoch):
        yield len(split.gather(order.batch(step)))


def loaded(split: ImageSplit) -> Iterator[int]:
    """One epoch through the loader and its thread."""
    order = TrainingOrder(len(split), BATCH, seed=0)
    with training_batches(split, order, Processes(0, 1, torch.device("cpu")), first_step=0) as batches:
        for _ in range(order.steps_per_epoch):
            yield len(next(batches))


def made() -> Iterator[int]:
    """Multi-dSprites drawn and rendered, not written."""
    counts = {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}
    sprites = coloured_sprites()
    scenes = draw_scenes(N_SCENES, len(sprites), counts, overlap=True, rng=np.random.RandomState(0))
    for images in rendered_in_parts(scenes, sprites):
        yield len(images)


def copied(split: ImageSplit) -> Iterator[int]:
    """The same bytes in whole, in their order: what the memory allows."""
    for array in split.arrays:
        yield len(array.copy())


def report(what: str, images: Iterator[int], image_bytes: int) -> None:
    before, start = own_memory(), time.process_time()
    most, n = before, 0
    for count in images:
        n += count
        most = max(most, own_memory()) if n % (16 * BATCH) == 0 else most
    rate = n / (time.process_time() - start)
    print(ROW.format(what, f"{rate:,.0f}", f"{rate * image_bytes / 1e6:,.0f}", f"{(most - before) / 2**20:+.1f} MiB"))


def own_memory() -> int:
    """Bytes, as Linux counts them."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def main() -> None:
    torch.set_num_threads(1)
    print(ROW.format("from a dump, in random order", "images/s", "MB/s", "own memory"))
    with tempfile.TemporaryDirectory() as folder:
        for name, (shape, n) in SETS.items():
            split, image_bytes = random_dump(Path(folder), name, shape, n), int(np.prod(shape))
            for _ in copied(split):  # warms the page cache
                pass
            report(f"{name}: copied whole, in order", copied(split), image_bytes)
            report(f"{name}: gathered", gathered(split), image_bytes)
            report(f"{name}: through the loader", loaded(split), image_bytes)
    report("64x64x3: multi-dSprites made", made(), 3 * 64 * 64)


if __name__ == "__main__":
    main()
