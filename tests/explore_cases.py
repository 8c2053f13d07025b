"""Runs of every family for the explorer, untrained, and requests for every view."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from small import override_list, write_dump

from lvae_torch.data.dump import Layout
from lvae_torch.data.shapes import POINT, ImageShape
from lvae_torch.data.writing import DumpWriter
from lvae_torch.distributed.place import choose_device
from lvae_torch.hparams import load_text
from lvae_torch.runs.checkpoint import TrainedOn
from lvae_torch.synthesis.codes import CodePrior
from lvae_torch.trained.run import TrainedRun

HOST = "127.0.0.1:8765"
IMAGE = {"split": "test", "index": 0}
GREY, COLOUR = (1, 8, 8), (3, 8, 8)
FAMILIES: dict[str, tuple[ImageShape, int, str]] = {
    "spatial_lvae": (GREY, 2, "z_channels = [2, 3]\ndownsample = [1, 1]\nn_filters = 4\nblocks_per_layer = 1"),
    "of_classes": (
        GREY,
        2,
        "z_channels = [2, 3]\ndownsample = [1, 1]\nn_filters = 4\nblocks_per_layer = 1\nclass_embedding = every_layer",
    ),
    "ladder": (GREY, 2, "z_dims = [4, 3, 2]\nwidths = [8, 7, 6]"),
    "hierarchical_vae": (GREY, 2, "z_dims = [4, 3]\nwidths = [8, 7]"),
    "vae": (GREY, 2, "z_dim = 2\nwidths = [5, 4]"),
    "vlae": (GREY, 2, "z_dim = 3\nwidths = [5, 4]\nprior_widths = [7, 6]"),
    "points": (POINT, 0, "network = dense\nz_dim = 2\nwidths = [8]\nlikelihood = gaussian"),
    "efficient_vdvae": (
        GREY,
        2,
        "likelihood = bernoulli\nscales = [1, 2, 4]\nbottom_up = [[2], [1, 1], [1]]\ntop_down = [[2], [1, 2], [2]]\n"
        "widths = [6, 8, 10]\nratios = 0.5\nkernels = [3, 3, 1]\nz_channels = [2, 2, 4]",
    ),
    "vdvae": (
        COLOUR,
        256,
        "enc_blocks = '8x1,8d2,4d4,1x1'\ndec_blocks = '1x1,4m1,4x1,8m4,8x1'\nwidth = 6\nbottleneck_multiple = 0.5\n"
        "custom_width_str = '4:8,1:9'\nz_channels = 2\nn_mixtures = 2\nno_bias_above = 4",
    ),
    "vqvae": (COLOUR, 256, "n_codes = 5\nwidth = 6\nresidual_blocks = 1"),
}


NOT_NAMES = {"points": "vae", "of_classes": "spatial_lvae"}
"""The families of those that are not named as one."""
CLASSES = ("left", "right", "top")


def run_of(name: str, folder: Path) -> TrainedRun:
    """An untrained run of a family, whose dump is in ``folder``; of a VQ-VAE, with a prior of its codes."""
    shape, n_levels, keys = FAMILIES[name]
    write_images(folder / "dumps", name, shape, n_levels)
    family = NOT_NAMES.get(name, name)
    classes = CLASSES if name == "of_classes" else ()
    text = f"[run]\nname = {name}\ndevice = cpu\n[data]\ndataset = {name}\n[model]\nfamily = {family}\n{keys}\n"
    settings = load_text(text, f"{name}.cfg", override_list(folder))
    model = built(settings.model.build, shape, n_levels, len(classes))
    on = TrainedOn(name, "0" * 64, shape, n_levels, classes=classes)
    run = TrainedRun(settings, model, 1, False, on, folder / "runs" / name, choose_device("cpu"))
    if name != "vqvae":
        return run
    section = load_text(
        "[run]\nname = p\n[data]\ndataset = x\n[model]\nfamily = pixelcnn\nwidth = 6\nlayers = 2\n", "p.cfg"
    ).model
    codes = CodePrior(built(section.build, (1, 2, 2), 5, 0), 5, {"prior_run": "codes", "prior_step": 1})
    return TrainedRun(settings, model, 1, False, on, folder, choose_device("cpu"), codes)


def built(build: Any, shape: ImageShape, n_levels: int, n_classes: int) -> Any:
    """A model with seeded weights, in evaluation mode."""
    torch.manual_seed(0)
    model = build(shape, n_levels, n_classes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def write_images(dumps: Path, name: str, shape: ImageShape, n_levels: int) -> None:
    """A dump of 17 images or points to test on, and some to train on."""
    if (dumps / name).exists():
        return
    if (shape, n_levels) == (GREY, 2) and name != "of_classes":
        return write_dump(dumps, name)
    generator = torch.Generator().manual_seed(2)
    channels, height, width = shape
    with DumpWriter(dumps, name, Layout(shape, n_levels, "uint8" if n_levels else "float32"), {"source": "made"}) as w:
        for split in ("train", "test"):
            drawn = torch.randn(17, height, width, channels, generator=generator)
            labels = np.arange(17) % len(CLASSES) if name == "of_classes" else None
            w.add(split, _on_levels(drawn, n_levels) if n_levels else drawn.numpy(), labels)


def _on_levels(drawn: torch.Tensor, n_levels: int) -> np.ndarray:
    return ((drawn * 40 + 128).clamp(0, 255) * n_levels / 256).byte().numpy()


def requests_of(run: TrainedRun) -> list[tuple[str, dict[str, Any]]]:
    """View and request, several of each view, with every option at least once."""
    n_layers, top = len(run.latent_shapes), run.latent_shapes[0]
    image, seed = {"split": "test", "index": 3}, {"seed": 4}
    move = {"layer": n_layers - 1, "channel": run.latent_shapes[-1][0] - 1, "value": 2.5}
    at = (
        {"layer": 0, "channel": 0, "value": -1, "at": [top[1] - 1, 0]}
        if len(top) == 3
        else {**move, "layer": 0, "channel": 0}
    )
    return [
        ("samples", {}),
        ("samples", {"seed": 3, "n": 5, "temperature": 0.5, "show": "sample"}),
        ("samples", {"seed": 3, "n": 9, "temperature": [0.7] * n_layers, "keep": {"sample": 7, "layers": 1}}),
        (
            "samples",
            {"n": 4, "temperature": ["linear", 1, 0.2], "show": "mode", "keep": {"sample": 0, "layers": n_layers}},
        ),
        ("reconstruction", {"image": image}),
        ("reconstruction", {"image": seed, "seed": 2, "temperature": 0.6, "heat": n_layers - 1}),
        ("mix", {"a": image, "b": seed, "layers": n_layers, "weight": 0.3}),
        ("mix", {"a": image, "b": {"split": "train", "index": 0}}),
        ("latents", {"base": seed, "temperature": 0.8, "moves": [move]}),
        ("latents", {"base": image, "moves": [move, at]}),
        *(_of_classes(image, seed, move) if run.classes else []),
    ]


def _of_classes(image: dict[str, Any], seed: dict[str, Any], move: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("samples", {"label": 2, "n": 4}),
        ("reconstruction", {"image": image, "label": 1}),
        ("mix", {"a": image, "b": seed, "label": 2}),
        ("latents", {"base": seed, "moves": [move], "label": 1}),
    ]


def write_digits(dumps: Path, digits: Path) -> None:
    """Binary digits of 28x28 as the dataset of the bundles that come with the program."""
    images = np.unpackbits(np.load(digits, allow_pickle=False), axis=1).reshape(-1, 28, 28, 1)
    with DumpWriter(dumps, "binarized_mnist", Layout((1, 28, 28), 2), {"source": "recorded digits"}) as writer:
        for split in ("train", "test"):
            writer.add(split, images)


def png(width: int, height: int, mode: str = "L") -> bytes:
    """A picture file of noise."""
    buffer = io.BytesIO()
    channels = np.random.default_rng(0).integers(0, 256, (len(mode), height, width), dtype=np.uint8)
    Image.merge(mode, [Image.fromarray(channel) for channel in channels]).save(buffer, "PNG")
    return buffer.getvalue()
