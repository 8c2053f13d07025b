"""One side of ``benchmarks.step``: a process that takes a training step when told to, and says what it cost.

It is run by its path, so that with another checkout on ``PYTHONPATH`` that checkout's ``lvae_torch`` is measured. It
prints a line of JSON when it is ready, and one after each line that it reads.
"""

import argparse
import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lvae_torch.data.transforms import Preprocess
from lvae_torch.distributed import memory
from lvae_torch.distributed.processes import Processes
from lvae_torch.elbo.objective import Objective
from lvae_torch.hparams import Settings, in_steps, load
from lvae_torch.info import shape_of_data
from lvae_torch.models.contract import Model
from lvae_torch.training import wrapping
from lvae_torch.training.ema import Ema
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import make_optimizer
from lvae_torch.training.section import TrainSection
from lvae_torch.training.step import TrainStep

Step = Callable[[Tensor], object]
"""Trains on raw images, uint8 (B, H, W, C)."""
SETTLED = 1_000_000  # a step behind the warm-up of beta and gamma
RATE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cfg", type=Path)
    parser.add_argument("batch_size", type=int)
    parser.add_argument("precision")
    parser.add_argument("threads", type=int)
    parser.add_argument("--adapter", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    changes = ["data.dumps=nowhere", f"train.batch_size={options.batch_size}", f"train.precision={options.precision}"]
    settings = in_steps(load(options.cfg, changes), 1000)
    (channels, height, width), n_levels = shape_of_data(settings)
    torch.manual_seed(0)
    raw = torch.randint(0, n_levels, (options.batch_size, height, width, channels), dtype=torch.uint8)
    before = peak_mib()
    step = adapted(options.adapter, settings) if options.adapter else whole_step(settings)
    step(raw), step(raw)  # the first makes buffers, and oneDNN its kernels
    answer({"ready": os.getpid()})
    for _ in sys.stdin:
        start = time.process_time()
        step(raw)
        answer({"seconds": time.process_time() - start, "mib": peak_mib() - before})


def answer(what: dict[str, float]) -> None:
    print(json.dumps(what), flush=True)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def whole_step(settings: Settings) -> Step:
    """All that training does between two log lines, with the settings' own sections."""
    getattr(memory, "keep_freed_memory", int)()  # older checkouts have none
    shape, n_levels = shape_of_data(settings)
    device, train = torch.device("cpu"), settings.train
    model = settings.model.build(shape, n_levels).train()
    wrapping.place(train, model, device)
    flat = FlatParameters(model)
    step = TrainStep(
        section=settings.optimizer,
        bare=model,
        **({"model": model} if "model" in TrainStep.__dataclass_fields__ else {}),  # older checkouts
        flat=flat,
        ema=Ema(model, train.ema_decay) if train.ema_decay else None,
        objective=Objective(settings.loss, shape),
        optimizer=make_optimizer(settings.optimizer, flat, model.block_weights()),
        learning_rate=lambda step: RATE,
        meter=Meter(len(model.latent_shapes()), device),
        preprocess=Preprocess(n_levels).training,
        **switches(train, model, flat),
    )
    return lambda raw: step(raw, SETTLED)


def switches(train: TrainSection, model: Model, flat: FlatParameters) -> dict[str, Any]:
    """What [train] makes of a step; of older checkouts, which knew no copies in half precision, what they knew."""
    if "half" in TrainStep.__dataclass_fields__:
        return wrapping.step_switches(train, model, flat, Processes(0, 1, torch.device("cpu")))
    is_half = train.precision == "bfloat16"
    return {"accumulate": train.accumulate, "autocast": torch.autocast("cpu", torch.bfloat16) if is_half else None}


def adapted(path: Path, settings: Settings) -> Step:
    """What ``make_step(settings)`` of a Python file gives: another program's step."""
    spec = importlib.util.spec_from_file_location("adapter", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    step: Step = module.make_step(settings)
    return step


if __name__ == "__main__":
    main()
