"""[data]: the images of a run, as training, evaluation and synthesis read them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.catalogue import CATALOGUE, CODES
from lvae_torch.data.dump import Dump, ImageSplit
from lvae_torch.data.images import Images
from lvae_torch.data.order import TrainingOrder, spread
from lvae_torch.data.section import DataSection
from lvae_torch.data.shapes import ImageShape
from lvae_torch.data.transforms import Preprocess
from lvae_torch.distributed.processes import Processes
from lvae_torch.errors import CfgError, DataError


def open_dump(section: DataSection) -> Dump:
    """Raises DataError if the dump is missing (with the command that makes it) or damaged."""
    return Dump.open(Path(section.dumps), section.dataset)


def described_images(section: DataSection) -> tuple[ImageShape, int] | None:
    """Shape (C, H, W) and pixel levels: of the dump, or of the known dataset of that name; None without either."""
    try:
        dump = open_dump(section)
    except (DataError, CfgError):
        return (CATALOGUE | CODES).get(section.dataset)
    return dump.image_shape, dump.n_levels


def level_misfits(section: DataSection, n_levels: int) -> Iterator[str]:
    """What ``[data]`` asks for that pixels of ``n_levels`` levels, 0 for none, cannot have."""
    if not n_levels:
        defaults = {"binarize": "none", "n_bits": 8, "dequantize": False}
        for key in (key for key, default in defaults.items() if getattr(section, key) != default):
            yield f"{key}: {section.dataset} has values without levels; leave it out"
    elif section.n_bits != 8 and n_levels != 256:
        yield f"n_bits = {section.n_bits}: {section.dataset} has {n_levels} levels, not 8 bits; leave it out"


def make_preprocess(section: DataSection, n_levels: int) -> Preprocess:
    """What turns what the dump holds into x.

    Raises:
        CfgError: if ``[data]`` asks for what only pixels in levels can have.
    """
    if problems := list(level_misfits(section, n_levels)):
        raise CfgError("\n".join(f"[data] {problem}." for problem in problems))
    return Preprocess(n_levels, section.n_bits, section.binarize, section.flip, section.dequantize)


MOST_LOOKED_AT, LOOKED_AT_BYTES = 1024, 32 * 2**20
"""Training images whose contrast is looked at, and about how much of them."""


@dataclass(frozen=True)
class RunData:
    """A dump, its two splits, and what turns their bytes into x."""

    dump: Dump
    split: ImageSplit
    """Of training, as the dump holds it."""
    training: Images
    validation: Images
    order: TrainingOrder
    preprocess: Preprocess

    @classmethod
    def of(cls, section: DataSection, batch_size: int, seed: int) -> "RunData":
        """
        Raises:
            DataError: if the dump or a split is missing, or has too few images for one batch.
            CfgError: if the section does not fit the dump.
        """
        dump = open_dump(section)
        preprocess = make_preprocess(section, dump.n_levels)
        split = dump.split(section.train_split, limit=section.limit_train)
        return cls(
            dump,
            split,
            Images(split, preprocess),
            Images(dump.split(section.val_split), preprocess, section.limit_val),
            TrainingOrder(len(split), batch_size, seed),
            preprocess,
        )

    @property
    def levels(self) -> int:
        """Levels of x; 0 for values that have none."""
        return self.preprocess.levels_after

    def first_batch(self, device: torch.device) -> Tensor:
        """The images of step 0 of all ranks, as evaluation sees them: x, (B, C, H, W)."""
        return self.training.at(self.order.batch(0), device)

    def telling(self, n: int, device: torch.device) -> Tensor:
        """``n`` training images, or all, as x, (n, C, H, W): half of them spread over the split, the others those with
        the most contrast of many that are, for where most images are blank, others count."""
        channels, height, width = self.dump.image_shape
        most = max(n, min(MOST_LOOKED_AT, LOOKED_AT_BYTES // (channels * height * width)))
        candidates = spread(len(self.split), most)
        contrast = self.split.gather(candidates).flatten(1).float().std(dim=1, correction=0)
        by_contrast = candidates[contrast.argsort(descending=True, stable=True).numpy()]
        chosen = [*spread(len(self.split), n)[:: 2 if len(candidates) > n else 1].tolist(), *by_contrast.tolist()]
        return self.training.at(np.array(list(dict.fromkeys(chosen))[:n]), device)

    def strided(self, n: int, device: torch.device) -> Tensor:
        """``n`` images spread over the validation split, which may be sorted, as x, (n, C, H, W)."""
        return self.validation.at(spread(len(self.validation.split), n), device)

    def validation_batches(self, batch_size: int, processes: Processes) -> tuple[Iterator[tuple[int, Tensor]], int]:
        """(j, x) of this rank's batches, and the most batches that any rank has."""
        images = self.validation
        batches = ((j, images.at(indices, processes.device)) for j, indices in images.batches(batch_size, processes))
        return batches, -(-images.n_batches(batch_size) // processes.world)
