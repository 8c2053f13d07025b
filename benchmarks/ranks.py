"""What ranks of one run lose against runs that know nothing of each other, on CPUs.

    python -m benchmarks.ranks [CFG] [--batch-size 64] [--ranks 2] [--rounds 7] [--steps 2]

As many processes as ranks, each with a core and a model, take a few steps each for itself, then waiting for each other
after each step, then as ranks of one run that average their gradients over gloo; then again. All cores are at work all
the time. What the second loses is due to steps that do not take equally long, on a shared machine most of it; what the
third loses against the second is the exchange. Processor time, of all threads, has no waiting in it.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from benchmarks._steps import CPU, trained_model, whole_step
from lvae_torch.distributed.memory import keep_freed_memory
from lvae_torch.distributed.processes import Processes
from lvae_torch.hparams import in_steps, load
from lvae_torch.training.step import TrainStep

Times = tuple[float, float]
"""Wall and processor time, seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path, nargs="?", default=Path("egs/spatial_lvae/static_mnist_3.cfg"))
    parser.add_argument("--batch-size", type=int, default=64, help="of each rank")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spawn(on_one_rank, (options, Path(folder, "store")), nprocs=options.ranks)


def on_one_rank(rank: int, options: argparse.Namespace, store: Path) -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    torch.set_num_threads(1)
    keep_freed_memory()
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=options.ranks)
    own = Processes(rank, options.ranks, CPU)
    alone, joined = (prepared(options, processes) for processes in (Processes(0, 1, CPU), own))
    ways: dict[str, tuple[TrainStep, Callable[[], object]]] = {
        "each for itself": (alone, int), "in step": (alone, dist.barrier), "as one run": (joined, int)
    }  # fmt: skip
    found: dict[str, list[Times]] = {name: [] for name in ways}
    for _ in range(options.rounds + 1):
        for name, way in ways.items():
            wall, processor = timed(*way, options)
            found[name].append((own.mean(wall), own.mean(processor)))
    dist.destroy_process_group()
    if rank == 0:
        report(options, {name: times[1:] for name, times in found.items()})  # the first steps make buffers


def prepared(options: argparse.Namespace, processes: Processes) -> TrainStep:
    settings = in_steps(load(options.cfg, ["data.dumps=nowhere"]), 1000)
    return whole_step(settings, trained_model(settings), processes=processes)


def timed(step: TrainStep, after_each: Callable[[], object], options: argparse.Namespace) -> Times:
    """Of a step, once all ranks are here."""
    channels, height, width = step.bare.image_shape
    raw = torch.zeros(options.batch_size, height, width, channels, dtype=torch.uint8)
    dist.barrier()
    wall, processor = time.perf_counter(), time.process_time()
    for k in range(options.steps):
        step(raw, k)
        after_each()
    return (time.perf_counter() - wall) / options.steps, (time.process_time() - processor) / options.steps


def report(options: argparse.Namespace, found: dict[str, list[Times]]) -> None:
    n_steps = options.rounds * options.steps
    print(f"{options.cfg.stem}, batch {options.batch_size} on each of {options.ranks} ranks, {n_steps} steps each way")
    first = next(iter(found.values()))
    for name, times in found.items():
        wall, processor = (1e3 * statistics.mean(column) for column in zip(*times, strict=True))
        told = [f"{name:<16} {wall:8.1f} ms a step, {processor:8.1f} ms of processor"]
        if times is not first:
            ratios = [[a / b for a, b in zip(*pair, strict=True)] for pair in zip(first, times, strict=True)]
            told += [f"{statistics.median(column):.1%}" for column in zip(*ratios, strict=True)]
        print("  " + "; ".join(told))


if __name__ == "__main__":
    main()
