"""``python -m lvae_torch.info CFG``: layers, sizes and costs of a model, without training or allocating it."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lvae_torch.cli import begin, main, parser

PARSER = parser("info")
PARSER.add_argument("--gpus", type=int, metavar="N", help="also tell what each of N cards needs, and whether it fits")
PARSER.add_argument("--memory", type=float, metavar="GB", help="memory of a card, as it is sold: 24, 40, 80, 141")
if __name__ == "__main__":
    begin(PARSER)  # before PyTorch is imported

import torch

from lvae_torch.data.classes import ClassNames
from lvae_torch.data.run_data import described_images, make_preprocess, open_dump
from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributed.cpu import half_told
from lvae_torch.distributed.memory import GIB
from lvae_torch.errors import CfgError
from lvae_torch.hparams import Settings, load
from lvae_torch.models.contract import Model
from lvae_torch.reporting.console import table
from lvae_torch.training.costs import PRECISIONS, flops_per_image, kept_for_backward
from lvae_torch.training.memory import AtOnce, Needs, needs_without_data
from lvae_torch.training.on_cards import CONTEXT, SPARE, Cards, Fit


def command(argv: Sequence[str]) -> None:
    """Print the table of the cfg's model."""
    arguments = PARSER.parse_args(argv)
    settings = load(Path(arguments.cfg), arguments.overrides, with_images=True)
    print(describe(settings))
    if arguments.gpus or arguments.memory:
        print(describe_cards(settings, arguments.gpus or 1, arguments.memory))


def describe(settings: Settings) -> str:
    """A table of layers, parameters, FLOPs and memory."""
    image_shape, n_levels = shape_of_data(settings)
    described = (image_shape, n_levels, n_classes(settings))
    model, build = meta_model(settings, *described), partial(settings.model.build, *described)
    shapes = model.latent_shapes()
    latents = [
        (f"z_{len(shapes) - i}" + (" (top)" if i == 0 else ""), f"{' x '.join(map(str, s))} = {math.prod(s):,}")
        for i, s in enumerate(shapes)
    ]
    forward, training = flops_per_image(model, image_shape)
    n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rows = [
        ("images", f"{' x '.join(map(str, image_shape))}, {n_levels} levels"),
        *([("classes", str(model.n_classes))] if model.n_classes else []),
        *latents,
        ("latents in all", f"{sum(map(math.prod, shapes)):,} for {math.prod(image_shape):,} pixel values"),
        ("parameters", f"{n_parameters:,}"),
        ("forward", f"{forward / 1e9:.3f} GFLOP per image"),
        ("training", f"{training / 1e9:.3f} GFLOP per image"),
        *_memory(settings, image_shape, build),
        ("this machine", half_told(torch.device("cpu"), settings.train.precision)),
        *(("WARNING", told) for told in settings.without_effect),
    ]
    return table(f"{settings.run.name}: {settings.model.family}", rows)


def _memory(settings: Settings, image_shape: ImageShape, build: Callable[[], Model]) -> list[tuple[str, str]]:
    """What each switch of [train] keeps per image, and what the settings as they are come to."""
    kept = kept_for_backward(build, image_shape)
    rows = [
        (name, ", ".join(f"{kept[checkpointing, p] / 2**20:.1f} MiB per image in {p}" for p in PRECISIONS))
        for name, checkpointing in (("kept for backward", False), ("activation_checkpointing", True))
    ]
    found = needs_without_data(
        build, settings.train, settings.loss, _at_once(settings), drawing=settings.synthesis.precision
    )
    return [*rows, *memory_rows(settings, found)]


def _at_once(settings: Settings) -> AtOnce:
    return AtOnce.of(settings.train, settings.val, settings.synthesis.batch_size)


def cards_for(settings: Settings, n_cards: int = 1, n_classes: int = 0) -> Cards:
    """The cards that train the cfg's model."""
    build = partial(settings.model.build, *shape_of_data(settings), n_classes)
    return Cards(build, settings.train, settings.val, settings.loss, n_cards, settings.synthesis.batch_size)


def describe_cards(settings: Settings, n_cards: int, memory: float | None) -> str:
    """A table of what each of ``n_cards`` cards of ``memory`` GB needs, and what to change where that is too much.

    Raises:
        CfgError: if the cards cannot share a batch evenly.
    """
    cards, batch_size = cards_for(settings, n_cards, n_classes(settings)), settings.train.batch_size
    if not cards.share or cards.share % settings.train.accumulate:
        parts = n_cards * settings.train.accumulate
        raise CfgError(
            f"[train] batch_size = {batch_size}, but {n_cards} cards need a multiple of {parts}; set another."
        )
    as_it_is, drawn = cards.as_it_is(), settings.synthesis.batch_size
    synthesis = CONTEXT + round(SPARE * cards.needs().synthesis.of(drawn))
    rows = [
        ("share of a batch", f"{cards.share} of {batch_size} images, in {settings.train.accumulate} part(s)"),
        ("training", f"{_gib(as_it_is.training)}: weights, gradients, moments, average, a step and its update"),
        ("evaluation", f"{_gib(as_it_is.evaluation)} beside it, for {settings.val.batch_size} images at once"),
        ("training in all", f"{_gib(as_it_is.whole)}, with {_gib(CONTEXT)} for CUDA and {SPARE - 1:.0%} to spare"),
        ("synthesis", f"{_gib(synthesis)} on one card, for {drawn} images at once"),
    ]
    if memory:
        rows.append((f"{memory:g} GB", _fitting(cards.fit(round(memory * GIB)))))
    return table(f"{n_cards} card(s), each (estimated)", rows)


def _fitting(fit: Fit | None) -> str:
    if fit is None:
        return "does not fit, whatever the switches; take a smaller model, or larger cards"
    if not fit.changes:
        return "fits"
    changes = " ".join(f"--set {key}={value}" for key, value in fit.changes.items())
    return f"does not fit as it is; {_gib(fit.whole)} with {changes}"


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f} GiB"


def memory_rows(settings: Settings, found: Needs) -> list[tuple[str, str]]:
    """What training, evaluation and synthesis need on one device, with the batch sizes that the settings have."""
    return [
        (f"{name} memory", f"about {getattr(found, name).of(n) / GIB:.2f} GiB for {n} images at once on one device")
        for name, n in _at_once(settings)._asdict().items()
    ]


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


def n_classes(settings: Settings) -> int:
    """Classes that the model is conditional on; 0 for an unconditional one.

    Raises:
        DataError: if there is no dump that says so.
    """
    data = settings.data
    return len(ClassNames.of(open_dump(data), data.train_split).names) if settings.model.is_conditional else 0


def meta_model(settings: Settings, image_shape: ImageShape, n_levels: int, n_classes: int = 0) -> Model:
    """The model on the meta device, which has shapes but no memory."""
    with torch.device("meta"):
        return settings.model.build(image_shape, n_levels, n_classes)


if __name__ == "__main__":
    main(command)
