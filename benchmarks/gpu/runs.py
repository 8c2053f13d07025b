"""Whole runs on the card: killed and resumed, used in all modes, fed by the loader, over NCCL, and for a minute."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks._steps import trained_model, whole_step
from benchmarks.gpu.bench import EGS, Bench, Row, settings_of
from benchmarks.gpu.exactness import BATCH, small_step
from data_scripts.commands import command as make_dump
from lvae_torch.data.loader import training_batches
from lvae_torch.data.run_data import RunData
from lvae_torch.distributed.processes import Processes
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.errors import Preempted
from lvae_torch.hparams import Settings, load
from lvae_torch.info import shape_of_data
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.synthesis.modes import MODES
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train
from lvae_torch.training.reduction import GradientSlices

STEPS = 60
SHORT = (
    f"train.steps={STEPS}", "train.checkpoint_every=5", "train.batch_size=16", "train.log_every=10",
    "run.deterministic=True", "val.every=0", "val.images=4", "run.report=False", "synthesis.n_images=8",
    "synthesis.pairs=2", "synthesis.iw_samples=2", "synthesis.limit=16", "synthesis.batch_size=8",
)  # fmt: skip
NEEDS_DOWNLOAD = {"sample_quality"}
COUNT, QUICK_COUNT = 2000, 200
"""Images that are made for the runs."""


@contextmanager
def place_of_runs(bench: Bench) -> Iterator[list[str]]:
    """Overrides that put dumps and runs into a folder of their own, with sprites in it."""
    with tempfile.TemporaryDirectory(prefix="lvae-gpu-") as folder:
        count = QUICK_COUNT if bench.is_quick else COUNT
        sprites = f"multi_dsprites --objects 1 --canvas 28 --count {count} --name quickstart_sprites".split()
        make_dump(["--dumps", folder, *sprites])
        yield [f"data.dumps={folder}", f"run.runs={folder}/runs", f"run.device={bench.device.type}", *bench.quickstart]


def settings_in(place: list[str], name: str, *overrides: str) -> Settings:
    return load(EGS / "quickstart.cfg", [*place, f"run.name={name}", *overrides], with_images=True)


def killed_and_resumed(bench: Bench) -> Iterator[Row]:
    """A run killed in the middle and started again, against one that was not; and then every mode on it."""
    with place_of_runs(bench) as place:
        train(settings_in(place, "whole", *SHORT))
        killed = settings_in(place, "killed", *SHORT)
        step = kill_in_the_middle(killed, [*place, "run.name=killed", *SHORT])
        train(killed)
        whole, resumed = (last_checkpoint(killed, name) for name in ("whole", "killed"))
        differing = {key: float((whole[key].double() - resumed[key].double()).abs().max()) for key in whole}
        worst = max(differing.values())
        numbers = {"killed after step": step, "largest difference": worst}
        yield Row("killed and resumed", numbers, 0 < step < STEPS and worst == 0.0)
        for mode in [name for name in MODES if name not in NEEDS_DOWNLOAD]:
            start = time.perf_counter()
            synthesize(killed, [mode])
            yield Row(f"mode {mode}", {"seconds": time.perf_counter() - start})


def kill_in_the_middle(settings: Settings, overrides: list[str]) -> int:
    """Train until there is a checkpoint, then kill the process; the step of its last checkpoint."""
    store = CheckpointStore(Path(settings.run.runs, settings.run.name, "checkpoints"))
    changes = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "lvae_torch.train", str(EGS / "quickstart.cfg"), *changes]
    with subprocess.Popen(command, cwd=EGS.parent) as process:
        while process.poll() is None and store.last_good() is None:
            time.sleep(0.01)
        process.kill()
    return store.last_good() or 0


def last_checkpoint(settings: Settings, name: str) -> dict[str, torch.Tensor]:
    """The weights with which a run ended."""
    model: dict[str, torch.Tensor] = CheckpointStore(Path(settings.run.runs, name, "checkpoints")).load("last")["model"]
    return model


def waits_for_images(bench: Bench) -> Iterator[Row]:
    """The share of the time in which steps wait for the loader."""
    n = 3 if bench.is_quick else 200
    with place_of_runs(bench) as place:
        settings = settings_in(place, "loader", "train.batch_size=64")
        data = RunData.of(settings.data, settings.train.batch_size, settings.run.seed)
        step = whole_step(settings, trained_model(settings, bench.device))
        processes, waited = Processes(0, 1, bench.device), 0.0
        with training_batches(data.split, data.order, processes, 0) as batches:
            step(next(batches).images, 0)
            bench.wait()
            start = time.perf_counter()
            for k in range(n):
                asked = time.perf_counter()
                images = next(batches).images
                waited += time.perf_counter() - asked
                step(images, k)
            bench.wait()
            seconds = time.perf_counter() - start
    yield Row("quickstart", {"batch": 64, "images/s": 64 * n / seconds, "share of waiting": waited / seconds})


def one_rank_exchanges(bench: Bench) -> Iterator[Row]:
    """A group of one rank, NCCL on cards: how fast it sums, and that steps with it are those without."""
    own_card = bench.device if bench.is_card else None
    dist.init_process_group(
        "nccl" if bench.is_card else "gloo", store=dist.HashStore(), rank=0, world_size=1, device_id=own_card
    )
    try:
        x = torch.zeros(2**16 if bench.is_quick else 2**26, device=bench.device)
        seconds = bench.seconds(partial(dist.all_reduce, x), 10)
        yield Row("sum over one rank", {"MB": x.nbytes / 1e6, "ms": 1e3 * seconds})
        settings = settings_of("quickstart", *bench.quickstart)
        alone, grouped = small_step(bench, settings), small_step(bench, settings)
        grouped.slices = GradientSlices(grouped.flat, world=1, collecting=True)
        raw = bench.images(4 if bench.is_quick else BATCH, *shape_of_data(settings))
        for step in (alone, grouped):
            for k in range(2 if bench.is_quick else 10):
                seed_everything("gpu", k)
                step(raw, k)
        error = float((alone.flat.vector - grouped.flat.vector).detach().abs().max())
        yield Row("steps with it", {"largest difference": error}, error < 1e-6)
    finally:
        dist.destroy_process_group()


def a_minute_of_training(bench: Bench) -> Iterator[Row]:
    """The quickstart from its first step on, as long as there is time, stopped as a scheduler stops it."""
    with place_of_runs(bench) as place:
        settings = settings_in(place, "minute", "train.steps=100000", "train.log_every=10", "val.every=0")
        told = Path(settings.run.runs, "minute", "metrics.jsonl")
        clock = threading.Thread(target=stop_after, args=(told, 3.0 if bench.is_quick else 60.0), daemon=True)
        clock.start()
        with suppress(Preempted):
            train(settings)
        lines = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]
        lines = [line for line in lines if "train/nelbo" in line]
    first, last = lines[0], lines[-1]
    numbers = {"steps": last["step"], "-ELBO first": first["train/nelbo"], "-ELBO last": last["train/nelbo"]}
    numbers |= {"images/s": last["speed/images_per_second"]}
    yield Row("quickstart", numbers, last["train/nelbo"] < first["train/nelbo"])


def stop_after(told: Path, seconds: float) -> None:
    """Ask this process to stop, so long after there is a first line in ``told``."""
    while not told.exists():
        time.sleep(0.01)
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGTERM)
