"""Picture files as images of a trained run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.pictures import MOST_BYTES, ImageShape, PictureFit
from lvae_torch.data.run_data import described_images, make_preprocess, open_dump
from lvae_torch.data.section import DataSection
from lvae_torch.data.transforms import Preprocess
from lvae_torch.errors import CfgError, DataError


@dataclass(frozen=True)
class Fit:
    """How picture files become x of a run."""

    pictures: PictureFit
    n_levels: int
    """Of the dump's pixels, before preprocessing."""
    preprocess: Preprocess
    knows_dump: bool

    @classmethod
    def of(cls, section: DataSection, image_shape: ImageShape, n_levels: int) -> "Fit":
        """As the dump was made; without the dump, the largest part in the middle.

        Args:
            n_levels: of the images that the run was trained on, after preprocessing.
        """
        try:
            dump = open_dump(section)
        except (DataError, CfgError):
            described = described_images(section)
            raw = described[1] if described else 256 if section.binarize != "none" or section.n_bits < 8 else n_levels
            return cls(PictureFit(image_shape), raw, make_preprocess(section, raw), knows_dump=False)
        fit = PictureFit.of(image_shape, dump.provenance)
        return cls(fit, dump.n_levels, make_preprocess(section, dump.n_levels), knows_dump=True)

    def of_file(self, path: Path) -> Tensor:
        """x, (1, C, H, W).

        Raises:
            DataError: if it is no picture that can be read.
        """
        try:
            with open(path, "rb") as file:
                data = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
        return self.of_bytes(data, str(path))[0]

    def of_bytes(self, data: bytes, place: str = "this picture") -> tuple[Tensor, str]:
        """x, (1, C, H, W), and what was done to the picture, in words.

        Raises:
            DataError: if it is no picture that can be read, or the run's images have no levels.
        """
        if not self.n_levels:
            raise DataError(f"{place}: the run's images are values without levels, so no picture can be one.")
        pixels, told = self.pictures(data, place)
        if self.n_levels > 256:  # the nearest level, so that white stays white
            pixels = (pixels.astype(np.int32) * (self.n_levels - 1) * 2 + 255) // 510
        elif self.n_levels < 256:
            pixels = pixels.astype(np.int32) * self.n_levels >> 8
        raw = torch.from_numpy(pixels.copy())[None]
        x = self.preprocess.evaluation(raw, torch.zeros(1, dtype=torch.int64))
        levels = self.preprocess.levels_after
        told += f", {levels} levels" if levels != 256 else ""
        return x, told + ("" if self.knows_dump else "; the run's dump is not here to say how it was made")
