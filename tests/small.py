"""Tiny data, settings and models that tests share."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.distributed.processes import Processes
from lvae_torch.elbo.objective import Objective
from lvae_torch.elbo.section import LossSection
from lvae_torch.hparams import Settings, load_text
from lvae_torch.models.families import FAMILIES
from lvae_torch.trained.loading import open_run
from lvae_torch.trained.run import TrainedRun
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.optimization import LearningRate, learning_rate, make_optimizer
from lvae_torch.training.section import OptimizerSection

IMAGE_SHAPE = (1, 8, 8)
N_TEST = 17

BRIEF = """\
[train]
steps = 6
batch_size = 8
log_every = 2
checkpoint_every = 2
[val]
every = 3
batch_size = 7
images = 4
[synthesis]
batch_size = 5
columns = 3
shard_size = 6
n_images = 7
pairs = 4
iw_samples = 3
"""
CFG = f"""
[run]
name = small
device = cpu
report = False
[data]
dataset = small
[model]
family = spatial_lvae
z_channels = [2, 3]
downsample = [1, 1]
n_filters = 4
blocks_per_layer = 1
dropout = 0.2
[loss]
beta = ('linear', 4)
free_bits = 0.1
[optimizer]
learning_rate = 1e-3
{BRIEF}chunk = 10
"""


def write_dump(dumps: Path, name: str = "small", n_train: int = 36, n_test: int = N_TEST, n_levels: int = 2) -> None:
    """Blobs that a model can learn: one bright rectangle per image."""
    rng = np.random.default_rng(0)
    with DumpWriter(
        dumps, name, Layout(IMAGE_SHAPE, n_levels), {"source": "made by a test"}, shard_bytes=1000
    ) as writer:
        for split, n in (("train", n_train), ("test", n_test)):
            images = np.zeros((n, 8, 8, 1), dtype=np.uint8)
            for image in images:
                row, column = rng.integers(0, 5, size=2)
                image[row : row + 4, column : column + 4] = n_levels - 1
            writer.add(split, images)


def settings(folder: Path, **overrides: Any) -> Settings:
    """``CFG`` with its dumps and runs in ``folder``; overrides as ``train__steps=3``."""
    return load_text(CFG, "small.cfg", override_list(folder, overrides))


def override_list(folder: Path, overrides: Mapping[str, Any] | None = None) -> list[str]:
    """The same as ``--set`` takes it."""
    places = [f"data.dumps={str(folder / 'dumps')!r}", f"run.runs={str(folder / 'runs')!r}"]
    return places + [f"{key.replace('__', '.')}={value!r}" for key, value in (overrides or {}).items()]


def model(image_shape: tuple[int, int, int] = IMAGE_SHAPE, n_levels: int = 2, **section: Any) -> Any:
    """A small spatial LVAE with seeded weights."""
    values = {
        "z_channels": (2, 3), "downsample": (1, 1), "n_filters": 4, "blocks_per_layer": 1, "dropout": 0.0, **section
    }  # fmt: skip
    return _built("spatial_lvae", values, image_shape, n_levels)


def dense(family: str, image_shape: tuple[int, int, int] = IMAGE_SHAPE, n_levels: int = 2, **section: Any) -> Any:
    """A small fully-connected model of three rungs with seeded weights."""
    return _built(family, {"z_dims": (4, 3, 2), "widths": (8, 7, 6), **section}, image_shape, n_levels)


def one_latent(family: str, image_shape: tuple[int, int, int] = IMAGE_SHAPE, n_levels: int = 2, **section: Any) -> Any:
    """A small VAE or VLAE with seeded weights."""
    flow = {"prior_widths": (7, 6)} if family == "vlae" else {}
    return _built(family, {"z_dim": 3, "widths": (5, 4, 6), **flow, **section}, image_shape, n_levels)


def vqvae(image_shape: tuple[int, int, int] = (3, 8, 8), n_levels: int = 256, **section: Any) -> Any:
    """A small VQ-VAE with seeded weights."""
    own = {} if "levels" in section else {"n_codes": 5}
    return _built("vqvae", {"width": 6, "residual_blocks": 1, **own, **section}, image_shape, n_levels)


def pixelcnn(image_shape: tuple[int, int, int] = (1, 4, 4), n_levels: int = 32, **section: Any) -> Any:
    """A small PixelCNN with seeded weights."""
    values = {"width": 6, "layers": 2, "embedding": 3, "out_width": 7, **section}
    return _built("pixelcnn", values, image_shape, n_levels)


def very_deep(image_shape: tuple[int, int, int] = IMAGE_SHAPE, n_levels: int = 2, **section: Any) -> Any:
    """A small Efficient-VDVAE with seeded weights: four stages on three scales, seven latent layers."""
    values = {
        "scales": (1, 2, 4), "bottom_up": ((2,), (1, 1), (1,)), "top_down": ((2,), (1, 2), (2,)),
        "widths": (6, 8, 10), "ratios": 0.5, "kernels": (3, 3, 1), "z_channels": (2, (3, 2), 4),
        "likelihood": "bernoulli" if n_levels == 2 else "discretized_logistic_mixture", "n_mixtures": 3, **section
    }  # fmt: skip
    return _built("efficient_vdvae", values, image_shape, n_levels)


def residual(image_shape: tuple[int, int, int] = (3, 8, 8), n_levels: int = 256, **section: Any) -> Any:
    """A small VDVAE with seeded weights: three resolutions, five latent layers."""
    values = {
        "enc_blocks": "8x1,8d2,4d4,1x1", "dec_blocks": "1x1,4m1,4x1,8m4,8x1", "width": 6, "bottleneck_multiple": 0.5,
        "custom_width_str": "4:8,1:9", "z_channels": 2, "n_mixtures": 2, "no_bias_above": 4, **section
    }  # fmt: skip
    return _built("vdvae", values, image_shape, n_levels)


def _built(name: str, values: dict[str, Any], image_shape: tuple[int, int, int], n_levels: int) -> Any:
    n_classes = values.pop("n_classes", 0)
    torch.manual_seed(0)
    built = FAMILIES[name](**values).build(image_shape, n_levels, n_classes)
    with torch.no_grad():
        for parameter in built.parameters():  # the top prior begins at zero; every path shall count
            parameter.add_(0.05 * torch.randn_like(parameter))
    return built


def objective(n_dims: int = 1, **loss: Any) -> Objective:
    """The objective of a ``[loss]`` section, divided by ``n_dims``."""
    return Objective(LossSection(**{"per_dimension": n_dims > 1, **loss}), (n_dims, 1, 1))


def optimizer(flat: FlatParameters, name: str = "adamax", **keys: Any) -> Optimizer:
    """The optimizer of an ``[optimizer]`` section over a flat vector."""
    return make_optimizer(OptimizerSection(name=name, **keys), flat)


def rate(schedule: str, total_steps: int, **keys: Any) -> LearningRate:
    """The learning rate of an ``[optimizer]`` section."""
    return learning_rate(OptimizerSection(schedule=schedule, **keys), total_steps)


def opened(settings: Settings) -> TrainedRun:
    """The trained run that the settings name."""
    return open_run(settings, Path(settings.run.runs) / settings.run.name, Processes(0, 1, torch.device("cpu")))


def images(n: int, shape: tuple[int, int, int] = IMAGE_SHAPE, n_levels: int = 2) -> torch.Tensor:
    """Random x, (n, *shape), on the levels."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, n_levels, (n, *shape), generator=generator).float() / (n_levels - 1)


SMALL: dict[str, Callable[[], Any]] = {
    "ladder": lambda: dense("ladder"),
    "hierarchical_vae": lambda: dense("hierarchical_vae"),
    "vae": lambda: one_latent("vae"),
    "vlae": lambda: one_latent("vlae"),
    "vqvae": vqvae,
    "pixelcnn": pixelcnn,
}
"""Families of which one small model serves all tests."""
