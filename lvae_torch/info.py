"""``python -m lvae_torch.info CFG``: layers, sizes and costs of a model, without training or allocating it."""

import math
from collections.abc import Sequence
from pathlib import Path

from lvae_torch.cli import main, parser

PARSER = parser("info")
if __name__ == "__main__":
    PARSER.parse_args()  # --help and wrong usage are answered before PyTorch is imported, which takes seconds

import torch

from lvae_torch.data.run_data import described_images, make_preprocess
from lvae_torch.data.shapes import ImageShape
from lvae_torch.errors import CfgError
from lvae_torch.hparams import Settings, load
from lvae_torch.models.contract import Model
from lvae_torch.reporting.console import table
from lvae_torch.training.costs import PRECISIONS, flops_per_image, kept_for_backward


def command(argv: Sequence[str]) -> None:
    """Print the table of the cfg's model."""
    arguments = PARSER.parse_args(argv)
    settings = load(Path(arguments.cfg), arguments.overrides, with_images=True)
    print(describe(settings))


def describe(settings: Settings) -> str:
    """A table of layers, parameters, FLOPs and memory."""
    image_shape, n_levels = shape_of_data(settings)
    model = meta_model(settings, image_shape, n_levels)
    shapes = model.latent_shapes()
    latents = [
        (f"z_{len(shapes) - i}" + (" (top)" if i == 0 else ""), f"{' x '.join(map(str, s))} = {math.prod(s):,}")
        for i, s in enumerate(shapes)
    ]
    forward, training = flops_per_image(model, image_shape)
    n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rows = [
        ("images", f"{' x '.join(map(str, image_shape))}, {n_levels} levels"),
        *latents,
        ("latents in all", f"{sum(map(math.prod, shapes)):,} for {math.prod(image_shape):,} pixel values"),
        ("parameters", f"{n_parameters:,}"),
        ("forward", f"{forward / 1e9:.3f} GFLOP per image"),
        ("training", f"{training / 1e9:.3f} GFLOP per image"),
        *_memory(settings, image_shape, n_levels, n_parameters),
    ]
    return table(f"{settings.run.name}: {settings.model.family}", rows)


def _memory(settings: Settings, image_shape: ImageShape, n_levels: int, n_parameters: int) -> list[tuple[str, str]]:
    """Rows of the memory per image for each switch of [train], and of the total for these settings."""
    train = settings.train
    kept = kept_for_backward(lambda: settings.model.build(image_shape, n_levels), image_shape)
    # Weights, gradients, two moments, and the EMA if there is one.
    copies = 5 if train.ema_decay else 4
    images = train.batch_size // train.accumulate
    total = 4 * n_parameters * copies + images * kept[train.activation_checkpointing, train.precision]
    rows = [
        (name, ", ".join(f"{kept[checkpointing, p] / 2**20:.1f} MiB per image in {p}" for p in PRECISIONS))
        for name, checkpointing in (("kept for backward", False), ("activation_checkpointing", True))
    ]
    return [*rows, ("training memory", f"about {total / 2**30:.2f} GiB for {images} images at once on one device")]


def shape_of_data(settings: Settings) -> tuple[ImageShape, int]:
    """Image shape, and levels after preprocessing, from the dump or else from the catalogue.

    Raises:
        CfgError: if neither knows the dataset.
    """
    if (described := described_images(settings.data)) is None:
        dumps, dataset = settings.data.dumps, settings.data.dataset
        raise CfgError(
            f"[data] dataset: the image shape of {dataset} is unknown without its dump in {dumps}. Make it: python -m "
            "data_scripts --list tells of all datasets."
        )
    image_shape, n_levels = described
    return image_shape, make_preprocess(settings.data, n_levels).levels_after


def meta_model(settings: Settings, image_shape: ImageShape, n_levels: int) -> Model:
    """The model on the meta device, which has shapes but no memory."""
    with torch.device("meta"):
        return settings.model.build(image_shape, n_levels)


if __name__ == "__main__":
    main(command)
