"""Checks between sections that are each valid on their own."""

from collections.abc import Callable, Iterator, Mapping

from lvae_torch.cfg.section import Section
from lvae_torch.data.classes import ClassNames, with_labels
from lvae_torch.data.run_data import described_images, level_misfits, make_preprocess, open_dump
from lvae_torch.data.section import DataSection
from lvae_torch.data.shapes import ImageShape
from lvae_torch.errors import CfgError, DataError
from lvae_torch.models.section import ModelSection
from lvae_torch.runs.section import RunSection
from lvae_torch.runs.trackers import TRACKERS, is_installed
from lvae_torch.training.section import OptimizerSection, TrainSection


def _warmup_ends(optimizer: OptimizerSection, train: TrainSection) -> Iterator[str]:
    # Epochs and steps can be compared only when the data is open; ``in_steps`` checks again.
    warmup, steps = optimizer.warmup_steps, train.steps
    if isinstance(warmup, int) and isinstance(steps, int) and warmup >= steps:
        yield (
            f"[optimizer] warmup_steps = {warmup} takes all of [train] steps = {steps}; shorten one or lengthen the "
            "other."
        )


def _blocks_are_known(optimizer: OptimizerSection, model: ModelSection) -> Iterator[str]:
    if optimizer.weight_decay_on == "blocks" and not model.has_block_weights:
        yield (
            f"[optimizer] weight_decay_on = blocks: family {model.family} does not say which weights those are; use "
            "all."
        )


def _kernels_are_chosen_alike(run: RunSection, train: TrainSection) -> Iterator[str]:
    if run.deterministic and train.cudnn_benchmark:
        yield "[train] cudnn_benchmark chooses by time, anew at each start; leave it out with [run] deterministic."


def _noise_has_a_density(data: DataSection, model: ModelSection) -> Iterator[str]:
    if data.dequantize and not model.is_density:
        likelihood = getattr(model, "likelihood", "that of codes")
        yield (
            f"[data] dequantize: the likelihood of [model], {likelihood}, is of levels, not a density; leave it out, "
            "or use gaussian."
        )


def _images_fit(data: DataSection, model: ModelSection) -> Iterator[str]:
    """Check [data] and [model] against the images of the dump or catalogue; unknown datasets pass."""
    if (described := described_images(data)) is None:
        return
    image_shape, n_levels = described
    yield from (problems := [f"[data] {problem}." for problem in level_misfits(data, n_levels)])
    if not problems:
        levels_after = make_preprocess(data, n_levels).levels_after
        yield from (f"[model] {problem}." for problem in model.misfits(image_shape, levels_after))


def _trackers_are_there(run: RunSection) -> Iterator[str]:
    for name in run.trackers:
        if not is_installed(tracker := TRACKERS[name]):
            yield (
                f"[run] trackers: {name} needs the package {tracker.package}; pip install "
                f"'lvae_torch[{tracker.extra}]', or leave it out."
            )


def _classes_are_known(data: DataSection, model: ModelSection) -> Iterator[str]:
    if not model.is_conditional:
        return
    try:
        dump = open_dump(data)
        splits = [dump.split(split) for split in (data.train_split, data.val_split)]
    except (DataError, CfgError):
        return  # told where the dump is opened
    try:
        classes = ClassNames.of(dump, data.train_split)
        for split in splits:
            with_labels(split, dump, classes.names)
    except DataError as error:
        yield f"[model] class_embedding needs a class for each image. {error}"


def _parts_are_large_enough(data: DataSection, model: ModelSection, train: TrainSection) -> Iterator[str]:
    if (described := described_images(data)) is not None and not list(level_misfits(data, described[1])):
        levels = make_preprocess(data, described[1]).levels_after
        if not list(model.misfits(described[0], levels)):
            yield from part_misfits(model, train, described[0], levels)


def part_misfits(
    model: ModelSection, train: TrainSection, image_shape: ImageShape, n_levels: int, world: int = 1
) -> Iterator[str]:
    """Why a step cannot be computed in parts as small as ``world`` processes and ``accumulate`` make them."""
    images = train.batch_size // (train.accumulate * world)
    is_shared = train.sync_batch_norm and world > 1
    if images == 1 and not is_shared and model.least_images(image_shape, n_levels) > 1:
        processes = f" over {world} processes" if world > 1 else ""
        parts = f" in {train.accumulate} parts" if train.accumulate > 1 else ""
        yield (
            f"[train] batch_size = {train.batch_size}{processes}{parts} is one image at a time, but the batch norm of "
            "[model] needs two; raise batch_size, lower accumulate, or leave batch norm out."
        )


Check = Callable[..., Iterator[str]]
CHECKS: dict[Check, tuple[str, ...]] = {
    _warmup_ends: ("optimizer", "train"),
    _blocks_are_known: ("optimizer", "model"),
    _kernels_are_chosen_alike: ("run", "train"),
    _noise_has_a_density: ("data", "model"),
}
"""Each check with the sections that it compares."""
ON_IMAGES: dict[Check, tuple[str, ...]] = {
    _images_fit: ("data", "model"),
    _classes_are_known: ("data", "model"),
    _parts_are_large_enough: ("data", "model", "train"),
    _trackers_are_there: ("run",),
}
"""Those that look at what is there too, the dataset or packages: for the start of a training."""


def cross_problems(sections: Mapping[str, Section | None], with_images: bool = False) -> Iterator[str]:
    """Yield each problem as ``[section] key ...``; sections that could not be read are left out.

    Args:
        with_images: also check the sections against the dataset, if it is known, and against what is installed.
    """
    checks = CHECKS | (ON_IMAGES if with_images else {})
    for check, names in checks.items():
        parts = [sections.get(name) for name in names]
        if None not in parts:
            yield from check(*parts)
