"""What a card can do, and what whole training steps make of it: time, share of the host, kinds of kernels, memory."""

import gc
from collections import Counter
from collections.abc import Iterator
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks._steps import trained_model, whole_step
from benchmarks.gpu.bench import Bench, Row, settings_of
from lvae_torch.distributed.graph import WARM_UP
from lvae_torch.hparams import Settings
from lvae_torch.info import shape_of_data
from lvae_torch.training.memory import AtOnce, needs
from lvae_torch.training.step import TrainStep

CFGS = (
    ("efficient_vdvae/cifar10_baseline", 16), ("spatial_lvae/static_mnist_12", 64), ("vdvae/vdvae_cifar10", 16),
    ("spatial_lvae/cifar10_15", 64), ("ladder/mnist_lvae_5", 256),
)  # fmt: skip
"""Those timed, each with its batch."""
FULL = "train.tf32=False"
MODES: dict[str, tuple[str, ...]] = {
    "eager": (FULL, "train.cuda_graph=False"),
    "graph": (FULL,),
    "graph, TF32": ("train.tf32=True",),
    "graph, bfloat16": ("train.precision=bfloat16",),
    "graph, bfloat16, recomputing": ("train.precision=bfloat16", "train.activation_checkpointing=True"),
}
KINDS: dict[str, tuple[str, ...]] = {
    "convolutions and products": ("conv", "gemm", "cutlass", "wgrad", "dgrad", "xmma", "implicit", "cudnn", "addmm"),
    "copies": ("copy", "memcpy", "cat", "memset", "fill"),
    "sums and norms": ("reduce", "norm", "softmax", "sum"),
    "element by element": ("elementwise", "vectorized", "multi_tensor", "where"),
}
"""Parts of names of kernels, or of operations on a CPU; the first kind that fits."""
STEPS = 10


def cfgs_of(bench: Bench) -> tuple[tuple[str, int], ...]:
    return (("quickstart", 2),) if bench.is_quick else CFGS


def the_card(bench: Bench) -> Iterator[Row]:
    """What it is, and its ceilings: products in each precision, memory, and the launch of an empty kernel."""
    yield Row("versions", {"torch": torch.__version__, "CUDA": torch.version.cuda or "none"})
    if bench.is_card:
        has = torch.cuda.get_device_properties(bench.device)
        free, total = torch.cuda.mem_get_info(bench.device)
        numbers = {"name": has.name, "capability": f"{has.major}.{has.minor}", "processors": has.multi_processor_count}
        yield Row("card", {**numbers, "GiB": total / 2**30, "GiB free": free / 2**30})
    side = 512 if bench.is_quick else 8192
    for name, dtype, is_tf32 in (
        ("float32", torch.float32, False), ("TF32", torch.float32, True), ("bfloat16", torch.bfloat16, False)
    ):  # fmt: skip
        torch.backends.cuda.matmul.allow_tf32 = is_tf32
        a = torch.randn(side, side, device=bench.device).to(dtype)
        yield Row(f"products in {name}", {"TFLOP/s": 2e-12 * side**3 / bench.seconds(partial(torch.mm, a, a), STEPS)})
    torch.backends.cuda.matmul.allow_tf32 = False
    x = torch.empty(2**20 if bench.is_quick else 2**28, device=bench.device)
    y = torch.empty_like(x)
    yield Row("memory", {"GB/s": 2e-9 * x.nbytes / bench.seconds(partial(y.copy_, x), STEPS)})
    one = torch.zeros(1, device=bench.device)
    yield Row("a launch", {"µs": 1e6 * bench.seconds(partial(one.add_, 1), 1000)})


def times_of_steps(bench: Bench) -> Iterator[Row]:
    """Milliseconds of a step in each mode; what the graph saves of the eager step's is the share of its launches."""
    for cfg, batch in cfgs_of(bench):
        eager = 0.0
        for mode, overrides in MODES.items() if bench.is_card else [("eager", ())]:
            seconds = timed(bench, settings_of(cfg, *overrides), batch)
            eager = eager or seconds
            numbers = {"batch": batch, "ms": 1e3 * seconds, "images/s": batch / seconds}
            yield Row(f"{cfg.rpartition('/')[2]}, {mode}", {**numbers, "less than eager": 1 - seconds / eager})


def times_of_compiled_steps(bench: Bench) -> Iterator[Row]:
    """The same of compiled models, which take minutes to compile: the smallest only if there is no more time."""
    for cfg, batch in reversed(CFGS):
        seconds = timed(bench, settings_of(cfg, "train.compile=True"), batch)
        numbers = {"batch": batch, "ms": 1e3 * seconds, "images/s": batch / seconds}
        yield Row(f"{cfg.rpartition('/')[2]}, compiled", numbers)


def timed(bench: Bench, settings: Settings, batch: int) -> float:
    """Seconds of a step after those in which libraries choose, and the graph is captured."""
    step, raw = prepared(bench, settings, batch)
    for k in range(1 if bench.is_quick else WARM_UP + 1):
        step(raw, k)
    return bench.seconds(partial(step, raw, WARM_UP + 1), 1 if bench.is_quick else STEPS)


def prepared(bench: Bench, settings: Settings, batch: int) -> tuple[TrainStep, torch.Tensor]:
    """A step that changes nothing, and a batch."""
    return whole_step(settings, trained_model(settings, bench.device)), bench.images(batch, *shape_of_data(settings))


def kinds_of_kernels(bench: Bench) -> Iterator[Row]:
    """Where the time of an eager step goes, by the names of its kernels."""
    for cfg, batch in cfgs_of(bench)[:3]:
        step, raw = prepared(bench, settings_of(cfg, "train.cuda_graph=False"), batch)
        step(raw, 0), step(raw, 1)
        bench.wait()
        with profile(activities=[ProfilerActivity.CUDA if bench.is_card else ProfilerActivity.CPU]) as seen:
            step(raw, 2)
            bench.wait()
        spent: Counter[str] = Counter()
        for event in seen.key_averages():
            spent[kind_of(event.key)] += event.self_device_time_total if bench.is_card else event.self_cpu_time_total
        whole = sum(spent.values())
        numbers = {kind: f"{time / whole:.0%}" for kind, time in spent.most_common()}
        yield Row(cfg.rpartition("/")[2], {"batch": batch, "ms": whole / 1e3, **numbers})


def kind_of(kernel: str) -> str:
    """One of ``KINDS``, or others."""
    name = kernel.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "others")


def memory_of_steps(bench: Bench) -> Iterator[Row]:
    """The peak of a step against what ``lvae info`` estimates."""
    torch.cuda.init()  # without which it does not know the device's number
    for cfg, batch in CFGS:
        settings = settings_of(cfg)
        gc.collect()  # the step before, whose hooks and parameters hold one another
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)
        step, raw = prepared(bench, settings, batch)
        for k in range(WARM_UP + 2):
            step(raw, k)
        peak = torch.cuda.max_memory_allocated(bench.device)
        estimate = needs(step.bare, settings.train, settings.loss, AtOnce(batch, 1, 1), step.half).training.of(batch)
        numbers = {"batch": batch, "peak GiB": peak / 2**30, "estimate GiB": estimate / 2**30}
        yield Row(cfg.rpartition("/")[2], {**numbers, "peak over estimate": peak / estimate})
        del step, raw
