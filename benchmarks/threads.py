"""How much faster a training step is with more threads, by the clock.

    python -m benchmarks.threads [CFG ...] [--threads 2] [--pairs 7] [--precision float32]

One process takes steps with one thread and with several, in turns, on random images of the cfg's own batch. Nothing
else may run, for threads wait for each other. Cores that are two halves of one give less than their number.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks._one_step import Step, whole_step
from lvae_torch.distributed.place import n_cores
from lvae_torch.hparams import in_steps, load
from lvae_torch.info import shape_of_data

CFGS = (
    "spatial_lvae/static_mnist_3",
    "spatial_lvae/cifar10_15",
    "efficient_vdvae/cifar10_baseline",
    "ladder/mnist_lvae_5",
)
ROW = "{:<28} {:>6} {:>16} {:>16} {:>22}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfgs", nargs="*", type=Path, default=[Path(f"egs/{cfg}.cfg") for cfg in CFGS])
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batch-size", type=int, help="instead of the cfg's")
    options = parser.parse_args()
    print(ROW.format("images a second", "batch", "1 thread", f"{options.threads} threads", "times as fast"), flush=True)
    for cfg in options.cfgs:
        print(ROW.format(*measured(cfg, options)), flush=True)


def measured(cfg: Path, options: argparse.Namespace) -> list[str]:
    """A row of the table."""
    changes = ["data.dumps=nowhere", f"train.precision={options.precision}"]
    if options.batch_size:
        changes.append(f"train.batch_size={options.batch_size}")
    settings = in_steps(load(cfg, changes), 1000)
    (channels, height, width), n_levels = shape_of_data(settings)
    batch = settings.train.batch_size
    raw = torch.randint(0, n_levels, (batch, height, width, channels), dtype=torch.uint8)
    step = whole_step(settings)
    pairs = []
    for k in range(options.pairs + 1):  # the first pair makes buffers, and oneDNN its kernels
        both = (1, options.threads) if k % 2 else (options.threads, 1)
        took = {threads: seconds(step, raw, threads) for threads in both}
        pairs.append((took[1], took[options.threads]))
    one, several = ([batch / pair[side] for pair in pairs[1:]] for side in (0, 1))
    ratios = [b / a for a, b in zip(one, several, strict=True)]
    told = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    rates = [f"{statistics.median(rates):,.1f}" for rates in (one, several)]
    return [cfg.stem, str(batch), *rates, told]


def seconds(step: Step, raw: torch.Tensor, threads: int) -> float:
    """By the clock."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    step(raw)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
