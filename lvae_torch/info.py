"""``python -m lvae_torch.info CFG``: layers, sizes and costs of a model, without training it or allocating it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lvae_torch.cli import main, parser
from lvae_torch.data.catalogue import CATALOGUE
from lvae_torch.data.dump import Dump
from lvae_torch.errors import CfgError, DataError
from lvae_torch.hparams import Settings, load
from lvae_torch.models.sources import posterior_sample
from lvae_torch.objectives import elbo_terms
from lvae_torch.reporting.console import table
from lvae_torch.wiring import build_model, make_preprocess

MEASURED_BATCH = 2


@dataclass(frozen=True)
class Costs:
    """What one image costs."""

    forward_flops: int
    train_flops: int
    """Forward and backward."""
    saved_bytes: int
    """Kept for the backward pass, float32."""


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
    n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    costs = costs_per_image(model, image_shape)
    latents = [
        (f"z_{len(shapes) - i}" + (" (top)" if i == 0 else ""), f"{' x '.join(map(str, s))} = {math.prod(s):,}")
        for i, s in enumerate(shapes)
    ]
    batch = settings.train.batch_size
    # Weights, gradients, two moments, and the EMA where there is one.
    copies = 5 if settings.train.ema_decay else 4
    memory = 4 * n_parameters * copies + batch * costs.saved_bytes
    rows = [
        ("images", f"{' x '.join(map(str, image_shape))}, {n_levels} levels"),
        *latents,
        ("latents in all", f"{sum(map(math.prod, shapes)):,} for {math.prod(image_shape):,} pixel values"),
        ("parameters", f"{n_parameters:,}"),
        ("forward", f"{costs.forward_flops / 1e9:.3f} GFLOP per image"),
        ("training", f"{costs.train_flops / 1e9:.3f} GFLOP per image"),
        ("kept for backward", f"{costs.saved_bytes / 2**20:.1f} MiB per image, float32"),
        ("training memory", f"about {memory / 2**30:.2f} GiB for a batch of {batch} on one device, float32"),
    ]
    return table(f"{settings.run.name}: {settings.model.family}", rows)


def shape_of_data(settings: Settings) -> tuple[tuple[int, int, int], int]:
    """Image shape and levels after preprocessing: of the dump, or of the standard dataset of that name.

    Raises:
        CfgError: if there is neither.
    """
    try:
        dump = Dump.open(Path(settings.data.dumps), settings.data.dataset)
        image_shape, n_levels = dump.image_shape, dump.n_levels
    except DataError as error:
        if settings.data.dataset not in CATALOGUE:
            raise CfgError(f"[data] dataset: its image shape is unknown without the dump. {error}") from error
        image_shape, n_levels = CATALOGUE[settings.data.dataset]
    return image_shape, make_preprocess(settings, n_levels).levels_after


def meta_model(settings: Settings, image_shape: tuple[int, int, int], n_levels: int) -> Any:
    """The model without its memory: shapes only."""
    with torch.device("meta"):
        return build_model(settings, image_shape, n_levels)


def costs_per_image(model: Any, image_shape: tuple[int, int, int]) -> Costs:
    """Count multiply-adds (2 FLOP each) of convolutions and matrix products, and bytes kept for the backward pass."""
    model.train()
    x = torch.empty(MEASURED_BATCH, *image_shape, device="meta")
    saved: dict[int, int] = {}
    own = {p.untyped_storage()._cdata for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage.nbytes()
        alive.append(tensor)  # or its address might be used again
        return tensor

    alive: list[Tensor] = []
    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            terms = elbo_terms(x, model(x, posterior_sample))
        forward = counter.get_total_flops()
        terms.nelbo.mean().backward()
    total = counter.get_total_flops()
    return Costs(forward // MEASURED_BATCH, total // MEASURED_BATCH, sum(saved.values()) // MEASURED_BATCH)


if __name__ == "__main__":
    main(command)
