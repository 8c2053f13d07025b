"""Whether the card computes what the CPU does, without waits, and a replayed graph what single kernels do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from benchmarks._steps import trained_model, whole_step
from benchmarks.gpu.bench import Bench, Row, settings_of
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.elbo.bounds import iw_bound, weighted_pass
from lvae_torch.hparams import Settings
from lvae_torch.info import shape_of_data
from lvae_torch.training.section import OptimizerSection
from lvae_torch.training.step import TrainStep

FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "spatial_lvae": ("quickstart", ()),
    "ladder": ("ladder/mnist_lvae_2", ()),
    "hierarchical_vae": ("ladder/mnist_vae_bn_2", ()),
    "vae": ("latent_variable_models/vae_cifar10", ()),
    "vlae": ("latent_variable_models/vlae_cifar10", ()),
    "vqvae": ("latent_variable_models/vqvae_cifar10", ("model.width=32", "model.n_codes=8")),
    "pixelcnn": (
        "latent_variable_models/pixelcnn_codes",
        ("data.dataset=binarized_mnist", "model.width=16", "model.layers=2", "model.out_width=32"),
    ),
    "efficient_vdvae": ("efficient_vdvae/binarized_mnist_small", ("model.z_channels=4",)),
    "vdvae": (
        "vdvae/vdvae_cifar10",
        ("model.width=32", "model.enc_blocks='32x1,32d2,16x1'", "model.dec_blocks='16x2,32m16,32x2'"),
    ),
}
"""A small model of each family: a cfg, and what makes it smaller."""
BATCH, STEPS = 16, 3
QUICK_BATCH, QUICK_STEPS = 4, 1  # batch norm of so few images makes much of little: rounding grows from step to step
SMALL = OptimizerSection(name="adam", eps=1.0)
"""Its step is as long as the gradient, not as its sign, so that rounding stays rounding."""
RATE = 1e-4
LARGEST_ERROR, LATER = 2e-3, 0.1
"""Of the gradient, relative to its norm, in the first step and in later ones, where a rectifier may have flipped; TF32,
in which PyTorch convolves by default, has 10 bits."""
REPLAYED = 20


class HostNoise(TorchFunctionMode):
    """Draws noise on the CPU, in float32, so that every device and precision has the same."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = {torch.randn_like: torch.randn, torch.rand_like: torch.rand}.get(func)
        if drawn is not None:
            return drawn(args[0].shape).to(args[0])
        where = (kwargs or {}).get("device")
        if func in (torch.rand, torch.randint, torch.randperm) and where is not None:
            return func(*args, **{**kwargs, "device": "cpu"}).to(where)
        return func(*args, **(kwargs or {}))


def families_agree(bench: Bench) -> Iterator[Row]:
    """Three steps of every family on the device, and on the CPU in float64, from the same weights and noise."""
    for family, (cfg, overrides) in FAMILIES.items():
        settings = settings_of(cfg, "train.cuda_graph=False", *overrides)
        exact = list(gradients(replace(bench, device=torch.device("cpu")), settings, torch.float64))
        ours = list(gradients(bench, settings, torch.float32))
        first, *later = [relative(mine, true) for mine, true in zip(ours, exact, strict=True)]
        numbers = {f"error in step {k}": error for k, error in enumerate([first, *later])}
        yield Row(family, numbers, first < LARGEST_ERROR and max(later, default=0.0) < LATER)


def gradients(bench: Bench, settings: Settings, dtype: torch.dtype) -> Iterator[Tensor]:
    """The gradient of each step, float64 on the CPU."""
    step = small_step(bench, settings, dtype)
    raw = bench.images(QUICK_BATCH if bench.is_quick else BATCH, *shape_of_data(settings))
    for k in range(QUICK_STEPS if bench.is_quick else STEPS):
        seed_everything("gpu", k)
        with HostNoise():
            step(raw, k)
        yield step.flat.gradient.to("cpu", torch.float64, copy=True)


def small_step(bench: Bench, settings: Settings, dtype: torch.dtype = torch.float32) -> TrainStep:
    """A step that moves the weights, from the same ones on every device and in every dtype."""
    model = trained_model(settings, torch.device("cpu")).to(bench.device, dtype)
    step = whole_step(settings, model, SMALL, RATE)
    preprocess = step.preprocess
    step.preprocess = lambda raw: preprocess(raw).to(dtype)
    return step


def relative(ours: Tensor, exact: Tensor) -> float:
    """The norm of the difference over that of ``exact``."""
    return float((ours - exact).norm() / exact.norm())


def nothing_waits(bench: Bench) -> Iterator[Row]:
    """A step of every family with an error at each call for which the host waits for the device."""
    for family, (cfg, overrides) in FAMILIES.items():
        settings = settings_of(cfg, "train.cuda_graph=False", *overrides)
        step = small_step(bench, settings)
        raw = bench.images(BATCH, *shape_of_data(settings))
        for k in range(2):  # libraries choose their algorithms
            step(raw, k)
        try:
            with waits_refused():
                step(raw, 2)
        except RuntimeError as reason:
            yield Row(family, {"waits": str(reason).splitlines()[0]}, passed=False)
        else:
            yield Row(family, {"waits": 0})


@contextmanager
def waits_refused() -> Iterator[None]:
    """Inside, what waits for the device raises RuntimeError."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def replays_are_steps(bench: Bench) -> Iterator[Row]:
    """The weights after 20 steps, and their bounds, replayed as graphs and computed kernel by kernel, bit for bit."""
    for family, (cfg, overrides) in FAMILIES.items():
        eager, graphed, again = (
            replayed(bench, settings_of(cfg, f"train.cuda_graph={is_graphed}", *overrides))
            for is_graphed in (False, True, False)
        )
        numbers, passed = {}, True
        for name, plain in eager.items():
            differing, at_best = (int((plain != other[name]).sum()) for other in (graphed, again))
            numbers |= {f"{name} that differ": differing, f"{name} of two eager runs": at_best}
            passed &= differing <= at_best
        yield Row(family, numbers, passed)


def replayed(bench: Bench, settings: Settings) -> dict[str, Tensor]:
    """The weights after so many steps, and the bounds on log p(x) of some images, as the settings compute them."""
    step = small_step(bench, settings)
    raw = bench.images(BATCH, *shape_of_data(settings))
    for k in range(REPLAYED):
        seed_everything("gpu", k)
        step(raw, k)
    model = step.bare.eval()
    weighted = weighted_pass(model, is_graphed=step.is_graphed)
    seed_everything("gpu", "bound")
    with torch.no_grad():
        x, labels = step.preprocess(raw), model.any_class(BATCH)
        bounds = iw_bound(model, x, REPLAYED, BATCH, labels=labels, weighted=weighted)
    return {"weights": step.flat.vector.detach().cpu(), "bounds": bounds.cpu()}
