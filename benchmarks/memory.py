"""What each memory switch of [train] saves, and what it costs: whole training steps on the CPU.

    python -m benchmarks.memory [--cfg egs/efficient_vdvae/cifar10_baseline.cfg] [--batch-size 4] [--steps 2]

Each row is a process of its own. Memory is the largest resident set of that process, less what it held before the
model was made (Python and PyTorch); time is processor time of a step, all threads.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks._steps import trained_model, whole_step
from lvae_torch.hparams import load
from lvae_torch.info import shape_of_data

ROWS = {
    "all activations kept": [],
    "activation_checkpointing": ["train.activation_checkpointing=True"],
    "accumulate over 4 parts": ["train.accumulate=4"],
    "both": ["train.activation_checkpointing=True", "train.accumulate=4"],
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cfg", type=Path, default=Path("egs/efficient_vdvae/cifar10_baseline.cfg"))
    arguments.add_argument("--batch-size", type=int, default=4)
    arguments.add_argument("--steps", type=int, default=2)
    arguments.add_argument("--row", choices=ROWS, help="measure one row here and print it as JSON")
    options = arguments.parse_args()
    if options.row:
        print(json.dumps(measured(options.cfg, options.batch_size, options.steps, options.row)))
    else:
        print_table(options.cfg, options.batch_size, options.steps)


def measured(cfg: Path, batch_size: int, steps: int, row: str) -> tuple[float, float]:
    """(GiB, CPU-seconds per step)."""
    settings = load(cfg, ["data.dumps=nowhere", f"train.batch_size={batch_size}", *ROWS[row]])
    (channels, height, width), n_levels = shape_of_data(settings)
    before = peak_gib()
    step = whole_step(settings, trained_model(settings))
    raw = torch.randint(0, n_levels, (batch_size, height, width, channels), dtype=torch.uint8)
    step(raw, 0)
    start = time.process_time()
    for k in range(steps):
        step(raw, k)
    return peak_gib() - before, (time.process_time() - start) / steps


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def print_table(cfg: Path, batch_size: int, steps: int) -> None:
    print(f"{cfg.stem}, batch {batch_size}, {torch.get_num_threads()} threads")
    whole = None
    for row in ROWS:
        command = [sys.executable, "-m", "benchmarks.memory", f"--row={row}", f"--cfg={cfg}"]
        command += [f"--batch-size={batch_size}", f"--steps={steps}"]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        memory, seconds = json.loads(result.stdout)
        whole = whole or (memory, seconds)
        print(
            f"  {row:<26} {memory:6.2f} GiB ({memory / whole[0]:4.0%})   {seconds:7.2f} CPU-s a step "
            f"({seconds / whole[1]:4.0%})"
        )


if __name__ == "__main__":
    main()
