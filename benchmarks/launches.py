"""What a step, an evaluated batch, a pass of the bound give a GPU to do: launches, copies, waits; and peak memory.

    NULL_GPUS=1 nullgpu.sh FOLDER python -m benchmarks.launches [--batch-size 16] [--set SECTION.KEY=VALUE] [CFG ...]
    NULL_GPUS=2 nullgpu.sh FOLDER torchrun --standalone --nproc_per_node=2 -m benchmarks.launches ...   # each rank's

It needs a stand-in for the GPU that counts and computes nothing, whose module ``null_counts`` it imports; ``make
gpu-dry`` builds one from a recipe, where there is one. Launches, copies, waits and memory are those of a real card, for
PyTorch's own code makes them; host time is processor time of this machine; times and values of kernels are not there.
"""

import argparse
import gc
import importlib
import itertools
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks._steps import trained_model, whole_step
from lvae_torch.distributed.graph import WARM_UP
from lvae_torch.distributed.memory import settled_objects
from lvae_torch.distributed.processes import Processes, start_processes
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.elbo.bounds import weighted_pass
from lvae_torch.elbo.passes import Passes
from lvae_torch.hparams import Settings, in_steps, load
from lvae_torch.info import shape_of_data

CFGS = (
    "spatial_lvae/static_mnist_3", "spatial_lvae/static_mnist_12", "spatial_lvae/cifar10_15",
    "efficient_vdvae/cifar10_baseline", "vdvae/vdvae_cifar10", "ladder/mnist_lvae_5",
    "latent_variable_models/vqvae_cifar10", "latent_variable_models/vlae_cifar10",
)  # fmt: skip
STEPS = 10
Work = Callable[[int], object]
"""Done for the k-th time."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("cfgs", nargs="*", type=Path, metavar="CFG")
    arguments.add_argument("--batch-size", type=int, default=16)
    arguments.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    arguments.add_argument("--of", action="append", choices=list(WORK), help="only this; may be repeated")
    arguments.add_argument("--json", action="store_true", help="print a list of objects")
    options = arguments.parse_args()
    if "NULL_GPU" not in os.environ:
        print("launches: this needs a stand-in for the GPU that counts; make gpu-dry starts it with one.")
        return
    counts: Any = importlib.import_module("null_counts")
    rows = []
    with start_processes("cuda") as processes:
        for cfg in options.cfgs or [Path("egs", f"{name}.cfg") for name in CFGS]:
            for of, is_graphed in itertools.product(options.of or WORK, (False, True)):
                overrides = [*options.overrides, f"train.cuda_graph={is_graphed}"]
                settings = in_steps(load(cfg, ["data.dumps=nowhere", *overrides]), 500)
                about = {"cfg": cfg.stem, "of": of, "is_graphed": is_graphed}
                work = WORK[of](settings, options.batch_size, processes)
                rows.append(about | counted(work, counts.counts, processes.device))
                if processes.is_main and not options.json:
                    print(told(rows[-1]), flush=True)
    if processes.is_main and options.json:
        print(json.dumps(rows, indent=2))


def a_step(settings: Settings, batch_size: int, processes: Processes) -> Work:
    """A whole training step."""
    step = whole_step(settings, trained_model(settings, processes.device), processes=processes)
    (channels, height, width), _ = shape_of_data(settings)
    raw = torch.zeros(batch_size, height, width, channels, dtype=torch.uint8, device=processes.device)
    return partial(step, raw)


def an_evaluation(settings: Settings, batch_size: int, processes: Processes) -> Work:
    """What an evaluation does for a batch."""
    model = trained_model(settings, processes.device).eval()
    x = torch.zeros(batch_size, *model.image_shape, device=processes.device)
    passes = Passes(model, is_graphed=settings.train.cuda_graph)

    def evaluated(k: int) -> None:
        with torch.no_grad():
            passes.elbo((x, model.any_class(batch_size)), None)

    return evaluated


def a_pass(settings: Settings, batch_size: int, processes: Processes) -> Work:
    """A pass of the importance-weighted bound, with ``batch_size`` samples of one image."""
    model = trained_model(settings, processes.device).eval()
    weighted = weighted_pass(model, is_graphed=settings.train.cuda_graph)
    with torch.no_grad():
        features = model.encode(x := torch.zeros(1, *model.image_shape, device=processes.device))

    def passed(k: int) -> None:
        with torch.no_grad():
            weighted((x, model.any_class(1), *features), batch_size)

    return passed


WORK = {"step": a_step, "evaluation": an_evaluation, "bound": a_pass}


def counted(work: Work, counts: Callable[[], dict[str, int]], device: torch.device) -> dict[str, Any]:
    """Counts for each time, milliseconds of the host's processor, GiB at the peak; all of this rank."""
    gc.collect()  # what was counted before, whose hooks and parameters hold one another
    torch.cuda.reset_peak_memory_stats()
    for k in range(WARM_UP + 1):
        work(k)
    with settled_objects(device):
        before, start = counts(), time.process_time()
        for k in range(STEPS):
            seed_everything("train", 0, 0, k)
            work(WARM_UP + 1 + k)
        seconds, after = time.process_time() - start, counts()
    each = {name: (after[name] - before[name]) / STEPS for name in after}
    return {"host_ms": 1e3 * seconds / STEPS, "peak_gib": torch.cuda.max_memory_allocated() / 2**30, **each}


def told(row: dict[str, Any]) -> str:
    """A line of the table."""
    how = "graph" if row["is_graphed"] else "eager"
    copies = sum(row[name] for name in ("h2d", "d2h"))
    waits = sum(row[name] for name in ("sync", "event_sync"))
    return (
        f"{row['cfg']:<18} {row['of']:<10} {how}  launches {row['launch']:>7,.0f}  graphs {row['graph']:.0f}  "
        f"host copies {copies:.0f}  waits {waits:.0f}  host {row['host_ms']:>8.1f} ms  peak {row['peak_gib']:.2f} GiB"
    )


if __name__ == "__main__":
    main()
