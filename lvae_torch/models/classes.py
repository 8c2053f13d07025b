"""Class-conditional models, p(x, z | y): where a pass is told the class y of each image, and by what.

A learned vector a class is added to every position of the maps that enter a layer of the top-down path. The vectors
begin at zero and draw no random number, so that a conditional model begins as the unconditional one, to the bit.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from lvae_torch.data.shapes import ImageShape
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Model
from lvae_torch.models.likelihoods.heads import LikelihoodSection

Where = Literal["none", "top", "every_layer"]


class ClassEmbedding(nn.Module):
    """One vector for each class, (K, W), added to maps of W channels."""

    def __init__(self, n_classes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_classes, width))

    def forward(self, h: Tensor, labels: Tensor) -> Tensor:
        """h, (B, W, height, width), plus the vectors of ``labels``, int64 (B,)."""
        return h + embedding(labels, self.weight)[:, :, None, None].to(h.dtype)


class Untold(nn.Module):
    """In place of an embedding where a layer is not told the class."""

    def forward(self, h: Tensor, labels: Tensor | None) -> Tensor:
        """h as it is."""
        return h


@dataclass(frozen=True)
class Classes:
    """How many classes a model is conditional on, and which of its layers are told."""

    count: int = 0
    """0 for an unconditional model."""
    where: Where = "none"

    def embedding(self, width: int, is_top: bool) -> ClassEmbedding | Untold:
        """What adds the class to the maps, of ``width`` channels, that enter a layer."""
        is_told = self.count > 0 and (is_top or self.where == "every_layer")
        return ClassEmbedding(self.count, width) if is_told else Untold()


UNCONDITIONAL = Classes()


class ConditionalSection(LikelihoodSection):
    """[model]: the base of families that can be conditional on the class of an image."""

    class_embedding: Where = "none"
    """Condition the model on the labels of the dump: add a learned vector a class to the maps at the top of the
    top-down path, or to those that enter every_layer; none for an unconditional model."""

    @property
    def is_conditional(self) -> bool:
        return self.class_embedding != "none"

    def build(self, image_shape: ImageShape, n_levels: int, n_classes: int = 0) -> Model:
        """The same for images of ``n_classes`` classes, which a conditional model needs.

        Raises:
            CfgError: if the settings do not fit the images or the classes.
        """
        self.check(image_shape, n_levels)
        if self.is_conditional and n_classes < 1:
            raise CfgError(
                f"[model] class_embedding = {self.class_embedding}: it is not known how many classes there are."
            )
        return self.make(image_shape, n_levels, Classes(n_classes if self.is_conditional else 0, self.class_embedding))

    @abstractmethod
    def make(self, image_shape: ImageShape, n_levels: int, classes: Classes = UNCONDITIONAL) -> Model:
        """Make the model; ``build`` has checked that images and classes fit."""
