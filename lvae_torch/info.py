"""``python -m lvae_torch.info CFG``: layers, sizes and costs of a model, without training it or allocating it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lvae_torch.cli import main, parser
from lvae_torch.data.catalogue import CATALOGUE, CODES
from lvae_torch.data.dump import Dump
from lvae_torch.errors import CfgError, DataError
from lvae_torch.hparams import Settings, load
from lvae_torch.models.costs import PRECISIONS, flops_per_image, kept_for_backward
from lvae_torch.reporting.console import table
from lvae_torch.wiring import build_model, make_preprocess


def command(argv: Sequence[str]) -> None:
    """Print what the cfg's model is made of."""
    arguments = parser("info", "Show a model's layers, sizes and costs.").parse_args(argv)
    settings = load(Path(arguments.cfg), arguments.overrides)
    print(describe(settings))


def describe(settings: Settings) -> str:
    """A table of layers, parameters, arithmetic and memory."""
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


def _memory(
    settings: Settings, image_shape: tuple[int, int, int], n_levels: int, n_parameters: int
) -> list[tuple[str, str]]:
    """What each switch of [train] keeps per image, and what the settings as they are come to."""
    train = settings.train
    kept = kept_for_backward(lambda: build_model(settings, image_shape, n_levels), image_shape)
    # Weights, gradients, two moments, and the EMA where there is one.
    copies = 5 if train.ema_decay else 4
    images = train.batch_size // train.accumulate
    total = 4 * n_parameters * copies + images * kept[train.activation_checkpointing, train.precision]
    rows = [
        (name, ", ".join(f"{kept[checkpointing, p] / 2**20:.1f} MiB per image in {p}" for p in PRECISIONS))
        for name, checkpointing in (("kept for backward", False), ("activation_checkpointing", True))
    ]
    return [*rows, ("training memory", f"about {total / 2**30:.2f} GiB for {images} images at once on one device")]


def shape_of_data(settings: Settings) -> tuple[tuple[int, int, int], int]:
    """Image shape and levels after preprocessing: of the dump, or of the standard dataset of that name.

    Raises:
        CfgError: if there is neither.
    """
    try:
        dump = Dump.open(Path(settings.data.dumps), settings.data.dataset)
        image_shape, n_levels = dump.image_shape, dump.n_levels
    except DataError as error:
        known = CATALOGUE | CODES
        if settings.data.dataset not in known:
            raise CfgError(f"[data] dataset: its image shape is unknown without the dump. {error}") from error
        image_shape, n_levels = known[settings.data.dataset]
    return image_shape, make_preprocess(settings, n_levels).levels_after


def meta_model(settings: Settings, image_shape: tuple[int, int, int], n_levels: int) -> Any:
    """The model without its memory: shapes only."""
    with torch.device("meta"):
        return build_model(settings, image_shape, n_levels)


if __name__ == "__main__":
    main(command)
