"""The base of every ``[model]`` section: it names a family, holds its options and builds the model."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch

from lvae_torch.cfg.section import Section
from lvae_torch.data.shapes import ImageShape
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Model
from lvae_torch.models.sources import posterior_sample

ONE_VALUE = "more than 1 value per channel"
"""What PyTorch's batch norm says of a single value."""


class ModelSection(Section):
    """[model]: the options of a family. Subclasses name the family and make its model."""

    family: str
    """Kind of model; the other keys of this section depend on it."""
    has_block_weights: ClassVar[bool] = False
    """Whether ``Model.block_weights`` names the weights that ``[optimizer] weight_decay_on = blocks`` decays."""

    @property
    def is_density(self) -> bool:
        """Whether p(x | z) is a density of continuous values, as ``[data] dequantize`` needs."""
        return False

    @property
    def is_conditional(self) -> bool:
        """Whether the model is conditional on the class of an image."""
        return False

    @property
    def remark(self) -> str:
        """A caveat to print beside every number of this model; empty for most models."""
        return ""

    def misfits(self, image_shape: ImageShape, n_levels: int) -> Iterator[str]:
        """Yield each reason why the model does not fit images (C, H, W) of ``n_levels`` levels (0: continuous)."""
        yield from ()

    def build(self, image_shape: ImageShape, n_levels: int, n_classes: int = 0) -> Model:
        """Build the model on the default device, for images (C, H, W) with ``n_levels`` levels after preprocessing.

        Args:
            n_classes: of the images; only a conditional model needs to know.
        Raises:
            CfgError: if the settings do not fit the images.
        """
        self.check(image_shape, n_levels)
        return self.make(image_shape, n_levels)

    def check(self, image_shape: ImageShape, n_levels: int) -> None:
        """
        Raises:
            CfgError: listing all ``misfits``.
        """
        if problems := list(self.misfits(image_shape, n_levels)):
            raise CfgError("\n".join(f"[model] {problem}." for problem in problems))

    def least_images(self, image_shape: ImageShape, n_levels: int) -> int:
        """Images that a pass in training needs: 2 where batch norm would have one value a channel, else 1."""
        with torch.device("meta"):
            model = self.build(image_shape, n_levels, n_classes=1).train()
            try:
                model(torch.empty(1, *image_shape), model.of_any_class(posterior_sample, 1))
            except ValueError as error:
                if ONE_VALUE not in str(error):
                    raise
                return 2
        return 1

    @abstractmethod
    def make(self, image_shape: ImageShape, n_levels: int) -> Model:
        """Make the model; ``build`` has checked that the images fit."""
