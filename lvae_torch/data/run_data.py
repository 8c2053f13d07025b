"""[data]: opens the images of a run for training, evaluation and synthesis."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lvae_torch.data.catalogue import CATALOGUE, CODES, OWN
from lvae_torch.data.classes import NO_CLASSES, ClassNames, with_labels
from lvae_torch.data.dump import Dump, ImageSplit
from lvae_torch.data.images import Images
from lvae_torch.data.labelled import Labelled
from lvae_torch.data.order import TrainingOrder, spread
from lvae_torch.data.section import DataSection
from lvae_torch.data.shapes import ImageShape
from lvae_torch.data.transforms import Preprocess
from lvae_torch.errors import CfgError, DataError


def open_dump(section: DataSection) -> Dump:
    """Open the dump that ``[data]`` names.

    Raises:
        DataError: if the dump is missing (with the command that makes it) or damaged.
    """
    return Dump.open(Path(section.dumps), section.dataset)


def described_images(section: DataSection) -> tuple[ImageShape, int] | None:
    """Shape (C, H, W) and pixel levels from the dump, else from the catalogue; None if neither knows the dataset."""
    try:
        dump = open_dump(section)
    except (DataError, CfgError):
        return (CATALOGUE | CODES | OWN).get(section.dataset)
    return dump.image_shape, dump.n_levels


def level_misfits(section: DataSection, n_levels: int) -> Iterator[str]:
    """Yield each request of ``[data]`` that does not fit pixels of ``n_levels`` levels (0: continuous values)."""
    if not n_levels:
        defaults = {"binarize": "none", "n_bits": 8, "dequantize": False}
        for key in (key for key, default in defaults.items() if getattr(section, key) != default):
            yield f"{key}: {section.dataset} has values without levels; leave it out"
    elif section.n_bits != 8 and n_levels != 256:
        yield f"n_bits = {section.n_bits}: {section.dataset} has {n_levels} levels, not 8 bits; leave it out"


def make_preprocess(section: DataSection, n_levels: int) -> Preprocess:
    """Make the preprocessing from raw images of the dump to x.

    Raises:
        CfgError: if ``[data]`` does not fit pixels of ``n_levels`` levels.
    """
    if problems := list(level_misfits(section, n_levels)):
        raise CfgError("\n".join(f"[data] {problem}." for problem in problems))
    return Preprocess(n_levels, section.n_bits, section.binarize, section.flip, section.dequantize)


MOST_LOOKED_AT, LOOKED_AT_BYTES = 1024, 32 * 2**20
"""Training images whose contrast is looked at, and about how much of them."""


@dataclass(frozen=True)
class RunData:
    """A dump, its two splits, and the preprocessing that turns their bytes into x."""

    dump: Dump
    split: ImageSplit
    """The training split, raw as in the dump."""
    training: Images
    validation: Images
    order: TrainingOrder
    preprocess: Preprocess
    classes: ClassNames = NO_CLASSES
    """Those that a class-conditional model is conditional on."""

    @classmethod
    def of(cls, section: DataSection, batch_size: int, seed: int, is_conditional: bool = False) -> "RunData":
        """Open the data that a run trains on and evaluates on.

        Args:
            is_conditional: whether the model needs the class of each image.
        Raises:
            DataError: if the dump or a split is missing, has too few images for one batch, or not the classes needed.
            CfgError: if the section does not fit the dump.
        """
        dump = open_dump(section)
        if missing := [key for key in ("train_split", "val_split") if getattr(section, key) not in dump.shards]:
            told = " and ".join(f"{key} = {getattr(section, key)}" for key in missing)
            raise DataError(
                f"[data] {told}: {dump.folder} has {', '.join(dump.shards)}. Name one of these"
                + (", or make the dump again with --valid 10%." if len(dump.shards) == 1 else ".")
            )
        preprocess = make_preprocess(section, dump.n_levels)
        classes = ClassNames.of(dump, section.train_split) if is_conditional else NO_CLASSES
        split = with_labels(dump.split(section.train_split, limit=section.limit_train), dump, classes.names)
        validation = with_labels(dump.split(section.val_split), dump, classes.names)
        return cls(
            dump,
            split,
            Images(split, preprocess),
            Images(validation, preprocess, section.limit_val),
            TrainingOrder(len(split), batch_size, seed),
            preprocess,
            classes,
        )

    @property
    def levels(self) -> int:
        """Levels of x; 0 for continuous values."""
        return self.preprocess.levels_after

    def first_batch(self, device: torch.device) -> Labelled:
        """The global batch of step 0, preprocessed as in evaluation."""
        return self.training.labelled(self.order.batch(0), device)

    def telling(self, n: int, device: torch.device) -> Labelled:
        """``n`` training images, or all: half of them spread over the split, the others those with the most contrast
        of many that are, for where most images are blank, others count."""
        return self.training.labelled(self._telling(n), device)

    def farthest(self, n: int) -> tuple[int, float]:
        """Of ``telling`` images, the one with the value farthest from zero: its number in the split, and the value."""
        indices = self._telling(n)
        values = self.split.gather(indices).flatten(1).float()
        k, where = divmod(int(values.abs().argmax()), values.shape[1])
        return int(indices[k]), float(values[k, where])

    def _telling(self, n: int) -> np.ndarray:
        channels, height, width = self.dump.image_shape
        most = max(n, min(MOST_LOOKED_AT, LOOKED_AT_BYTES // (channels * height * width)))
        candidates = spread(len(self.split), most)
        contrast = self.split.gather(candidates).flatten(1).float().std(dim=1, correction=0)
        by_contrast = candidates[contrast.argsort(descending=True, stable=True).numpy()]
        chosen = [*spread(len(self.split), n)[:: 2 if len(candidates) > n else 1].tolist(), *by_contrast.tolist()]
        return np.array(list(dict.fromkeys(chosen))[:n])

    def strided(self, n: int, device: torch.device) -> Labelled:
        """``n`` images spread evenly over the validation split, which may be sorted."""
        return self.validation.labelled(spread(len(self.validation.split), n), device)
