"""What two ranks lose against two runs that know nothing of each other: the exchange of gradients, on CPUs.

    python -m benchmarks.ranks [CFG] [--batch-size 64] [--ranks 2] [--pairs 9] [--steps 3]

As many processes as ranks, a core and a model each, take a few steps each for itself, and as many as ranks of one run
that average their gradients over gloo, in turns; all start together each time. Efficiency is the time of the steps
each for itself over that of the others. Both halves of the machine are at work all the time, so that it is the
exchange that is measured and not the cores' shared memory.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from benchmarks._steps import CPU, trained_model, whole_step
from lvae_torch.distributed.memory import keep_freed_memory
from lvae_torch.distributed.processes import Processes
from lvae_torch.hparams import in_steps, load
from lvae_torch.training.step import TrainStep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path, nargs="?", default=Path("egs/spatial_lvae/static_mnist_3.cfg"))
    parser.add_argument("--batch-size", type=int, default=64, help="of each rank")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spawn(on_one_rank, (options, Path(folder, "store")), nprocs=options.ranks)


def on_one_rank(rank: int, options: argparse.Namespace, store: Path) -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    torch.set_num_threads(1)
    keep_freed_memory()
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=options.ranks)
    own = Processes(rank, options.ranks, CPU)
    apart, together = (prepared(options, processes) for processes in (Processes(0, 1, CPU), own))
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for k in range(options.pairs + 1):
        for is_joined in (True, False) if k % 2 else (False, True):
            seconds[is_joined].append(own.mean(timed(together if is_joined else apart, options)))
    dist.destroy_process_group()
    if rank == 0:
        report(options, seconds[False][1:], seconds[True][1:])  # the first of each makes buffers


def prepared(options: argparse.Namespace, processes: Processes) -> TrainStep:
    settings = in_steps(load(options.cfg, ["data.dumps=nowhere"]), 1000)
    return whole_step(settings, trained_model(settings), processes=processes)


def timed(step: TrainStep, options: argparse.Namespace) -> float:
    """Seconds of a step, once all ranks are here."""
    channels, height, width = step.bare.image_shape
    raw = torch.zeros(options.batch_size, height, width, channels, dtype=torch.uint8)
    dist.barrier()
    start = time.perf_counter()
    for k in range(options.steps):
        step(raw, k)
    return (time.perf_counter() - start) / options.steps


def report(options: argparse.Namespace, apart: list[float], together: list[float]) -> None:
    ratios = sorted(a / b for a, b in zip(apart, together, strict=True))
    print(f"{options.cfg.stem}, batch {options.batch_size} on each of {options.ranks} ranks, {options.pairs} pairs")
    print(f"  each for itself {1e3 * statistics.median(apart):8.1f} ms a step")
    print(f"  as one run      {1e3 * statistics.median(together):8.1f} ms a step")
    print(f"  efficiency {statistics.median(ratios):.1%} (pairs: {ratios[0]:.1%} to {ratios[-1]:.1%})")


if __name__ == "__main__":
    main()
