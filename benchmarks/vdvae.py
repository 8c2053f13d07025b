"""A whole training step of VDVAE beside openai's own code, in turns, on one CPU thread.

    python -m benchmarks.vdvae [--peer FOLDER] [--cfg egs/vdvae/vdvae_cifar10.cfg] [--batch-size 2] [--steps 3]

Without FOLDER ours alone is measured. It is a checkout of github.com/openai/vdvae, of which only vae.py and
vae_helpers.py are used, as they are; its step is forward, backward, clipping, AdamW and the average of the weights,
as its train.py has them. Each row is a process of its own. Memory is the largest resident set, less what was held
before the model was made; time is processor time.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._steps import trained_model, whole_step
from lvae_torch.hparams import Settings, load
from lvae_torch.info import shape_of_data

ROWS = ("ours", "theirs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--cfg", type=Path, default=Path("egs/vdvae/vdvae_cifar10.cfg"))
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--row", choices=ROWS, help="measure one row here and print it as JSON")
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measured(options)))
    else:
        print_table(options)


def measured(options: argparse.Namespace) -> tuple[float, float]:
    """(GiB, the shortest CPU-seconds of a step)."""
    torch.set_num_threads(1)
    settings = load(options.cfg, ["data.dumps=nowhere", f"train.batch_size={options.batch_size}"])
    (channels, height, width), n_levels = shape_of_data(settings)
    raw = torch.randint(0, n_levels, (options.batch_size, height, width, channels), dtype=torch.uint8)
    before = peak_gib()
    step = _ours(settings) if options.row == "ours" else _theirs(settings, options.peer)
    step(raw)
    seconds = []
    for _ in range(options.steps):
        start = time.process_time()
        step(raw)
        seconds.append(time.process_time() - start)
    return peak_gib() - before, min(seconds)


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _ours(settings: Settings) -> Callable[[Tensor], None]:
    step = whole_step(settings, trained_model(settings), settings.optimizer)
    return lambda raw: step(raw, 0)


class _Hparams(dict[str, Any]):
    __getattr__ = dict.__getitem__


def _theirs(settings: Settings, peer: Path) -> Callable[[Tensor], None]:
    sys.path.insert(0, str(peer))
    from vae import VAE  # type: ignore[import-not-found]

    section = settings.model
    hparams = _Hparams(
        **{key: getattr(section, key) for key in ("enc_blocks", "dec_blocks", "width", "custom_width_str")},
        **{key: getattr(section, key) for key in ("bottleneck_multiple", "no_bias_above")},
        **{"zdim": section.z_channels, "num_mixtures": section.n_mixtures, "dataset": "cifar10"},
        **{"image_channels": 3, "image_size": shape_of_data(settings)[0][1]},
    )
    torch.manual_seed(0)
    vae, averaged = VAE(hparams), VAE(hparams).requires_grad_(False)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=0.0, betas=(0.9, 0.9), weight_decay=0.01)

    def step(raw: Tensor) -> None:
        vae.zero_grad()
        x = (raw.float() - section.input_mean) / section.input_std
        vae.forward(x, raw.float() / 127.5 - 1)["elbo"].backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 200.0).item()
        optimizer.step()
        for new, old in zip(vae.parameters(), averaged.parameters(), strict=True):
            old.data.mul_(0.9999).add_(new.data * (1 - 0.9999))

    return step


def print_table(options: argparse.Namespace) -> None:
    print(f"{options.cfg.stem}, batch {options.batch_size}, one thread; {options.turns} turns")
    rows = ROWS if options.peer else ROWS[:1]
    results: dict[str, list[tuple[float, float]]] = {row: [] for row in rows}
    for _ in range(options.turns):
        for row in rows:
            command = [sys.executable, "-m", "benchmarks.vdvae", f"--row={row}", f"--cfg={options.cfg}"]
            command += [f"--batch-size={options.batch_size}", f"--steps={options.steps}"]
            command += [f"--peer={options.peer}"] if options.peer else []
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            results[row].append(tuple(json.loads(result.stdout)))
    best = {row: (min(gib for gib, _ in all_), min(s for _, s in all_)) for row, all_ in results.items()}
    for row, (gib, seconds) in best.items():
        print(f"  {row:<7} {gib:6.2f} GiB   {seconds:7.2f} CPU-s a step")
    if "theirs" not in best:
        return
    (gib, seconds), (their_gib, their_seconds) = best["ours"], best["theirs"]
    print(f"  ours: {gib / their_gib:.2f} of the memory, {their_seconds / seconds:.2f} times as fast")


if __name__ == "__main__":
    main()
