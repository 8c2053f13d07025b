"""What a training step costs beyond its network: the whole program against bare forward and backward passes.

    python -m benchmarks.overhead [--cfg egs/spatial_lvae/static_mnist_12.cfg] [--pairs 5] [--batch-size 64]

Both run the same model on the same images. The bare step is eager forward, loss and backward. The whole step adds all
that training does: gathering and moving the batch, preprocessing, gradient norm, optimizer, skip guard, EMA, metering,
a log line with its host read, and a checkpoint's snapshot and write at their default intervals, shared out over the
steps between them. Times are process CPU times of all threads, in alternating pairs.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._steps import trained_model, whole_step
from lvae_torch.data.dump import Dump, Layout
from lvae_torch.data.order import TrainingOrder
from lvae_torch.data.writing import DumpWriter
from lvae_torch.distributed.processes import Processes
from lvae_torch.hparams import in_steps, load, to_cfg
from lvae_torch.info import shape_of_data
from lvae_torch.models.sources import posterior_sample
from lvae_torch.runs.checkpoint import About, State, TrainedOn
from lvae_torch.runs.checkpoints import CheckpointStore

N_IMAGES = 2000
STEPS_PER_EPOCH = 500  # for intervals that a cfg gives in epochs


def cpu_seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cfg", type=Path, default=Path("egs/spatial_lvae/static_mnist_12.cfg"))
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--batch-size", type=int, default=64)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report(options.cfg, options.pairs, options.batch_size, Path(folder))


def report(cfg: Path, pairs: int, batch_size: int, folder: Path) -> None:
    settings = in_steps(load(cfg, ["data.dumps=nowhere"]), STEPS_PER_EPOCH)
    shape, n_levels = shape_of_data(settings)
    model = trained_model(settings)
    step = whole_step(settings, model)
    alone = Processes(0, 1, torch.device("cpu"))
    split = images(folder, shape, n_levels)
    order = TrainingOrder(len(split), batch_size, seed=0)
    store = CheckpointStore(folder / "checkpoints", keep=1)
    about = About(to_cfg(settings), TrainedOn("random", "", shape, n_levels))
    x = step.preprocess(split.gather(order.batch(0)))

    def bare() -> None:
        loss, _ = step.objective(x, model(x, posterior_sample), 0)
        loss.backward()  # type: ignore[no-untyped-call]

    def whole(k: int) -> None:
        step(split.gather(order.batch(k)), k)

    def checkpoint() -> None:
        store.save(1, step.checkpoint(State(), about).as_dict())
        store.wait()

    bare(), whole(0), checkpoint()  # warm up
    costs = [(cpu_seconds(bare), cpu_seconds(partial(whole, k))) for k in range(pairs)]
    log = cpu_seconds(lambda: step.meter.read(alone)) / settings.train.log_every
    saving = cpu_seconds(checkpoint) / settings.train.checkpoint_every
    print_table(cfg.stem, batch_size, costs, log, saving)


def images(folder: Path, shape: tuple[int, int, int], n_levels: int) -> Any:
    """Random images as a dump, read as training reads it."""
    channels, height, width = shape
    rng = np.random.default_rng(0)
    with DumpWriter(folder, "random", Layout(shape, n_levels), {"source": "benchmark"}) as writer:
        writer.add("train", rng.integers(0, n_levels, (N_IMAGES, height, width, channels), dtype=np.uint8))
    return Dump.open(folder, "random").split("train")


def print_table(name: str, batch_size: int, costs: list[tuple[float, float]], log: float, saving: float) -> None:
    bare, whole = (statistics.median(column) for column in zip(*costs, strict=True))
    ratios = [b / a for a, b in costs]
    total = (whole + log + saving) / bare - 1
    print(f"{name}, batch {batch_size}, {torch.get_num_threads()} threads, {len(costs)} pairs")
    print(f"  bare forward and backward       {bare:8.3f} CPU-s")
    print(f"  whole step                      {whole:8.3f} CPU-s")
    print(f"  log line, share of a step       {log:8.5f} CPU-s")
    print(f"  checkpoint, share of a step     {saving:8.5f} CPU-s")
    low, high = min(ratios) - 1, max(ratios) - 1
    print(f"  overhead                        {total:8.1%}   (steps alone, pairs: {low:.1%} to {high:.1%})")


if __name__ == "__main__":
    main()
