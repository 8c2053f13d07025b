"""What people give to a trained run: images, latents and labels, checked and moved to its device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.classes import class_numbers
from lvae_torch.models.contract import Model

Labels = int | str | Sequence[int | str] | Tensor | np.ndarray
"""Of a class-conditional model: the class of each image, by number or name, or one for all."""


@dataclass(frozen=True)
class Given:
    """The run that it is given to."""

    name: str
    model: Model
    n_levels: int
    """Pixel levels of its images; 0 for continuous values."""
    classes: Sequence[str]
    """Names of the classes that the model is conditional on."""
    device: torch.device

    def images(self, x: Tensor) -> Tensor:
        """Check x and move it to the device.

        Raises:
            TypeError: if x is not a tensor of floats.
            ValueError: if x has another shape than the model's images, or values outside [0, 1].
        """
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"images are {kind}; give a torch tensor of floats in [0, 1], such as pixels / 255.")
        if x.ndim != 4 or not len(x) or tuple(x.shape[1:]) != self.model.image_shape:
            wanted = ", ".join(map(str, self.model.image_shape))
            raise ValueError(f"images have shape {tuple(x.shape)}; {self.name} needs (N, {wanted}) with N >= 1.")
        x = x.to(self.device, torch.get_default_dtype())
        if self.n_levels and not ((x >= 0) & (x <= 1)).all():  # NaN is outside too
            raise ValueError(f"images have values from {x.min():g} to {x.max():g}; scale them to [0, 1].")
        return x

    def on_levels(self, x: Tensor) -> Tensor:
        """The same for likelihoods, which need values on the pixel levels.

        Raises:
            ValueError: if x has values between the levels.
        """
        x, n_levels = self.images(x), self.n_levels
        if self.model.in_bits:
            steps = x * (n_levels - 1)
            if ((steps - steps.round()).abs() > 0.01).any():
                remedy = "binarize them, (x >= 0.5).float()" if n_levels == 2 else f"round them to k / {n_levels - 1}"
                raise ValueError(f"images have values between the {n_levels} pixel levels of {self.name}; {remedy}.")
        return x

    def latents(self, latents: Sequence[Tensor]) -> list[Tensor]:
        """Check the z of each layer, (B, ...), top layer first.

        Raises:
            ValueError: if shapes or number of the latents do not fit the model.
        """
        given, shapes = [tuple(z.shape[1:]) for z in latents], self.model.latent_shapes()
        counts = {len(z) for z in latents}
        if not given or given != list(shapes) or len(counts) != 1 or 0 in counts:
            wanted = ", ".join(f"(N, {', '.join(map(str, shape))})" for shape in shapes) or "no latents"
            told = ", ".join(str(tuple(z.shape)) for z in latents) or "none"
            raise ValueError(f"{len(given)} latents of shapes {told}; {self.name} has {wanted}, top layer first.")
        return [z.to(self.device) for z in latents]

    def labels(self, labels: Labels | None, n: int) -> Tensor | None:
        """The classes of ``n`` images, int64 (n,); None for an unconditional model.

        Raises:
            ValueError: if the model needs labels and has none, or they are not one known class for each image.
        """
        if not self.classes:
            if labels is not None:
                raise ValueError(f"{self.name} is not class-conditional; leave labels out.")
            return None
        if labels is None:
            raise ValueError(f"{self.name} is conditional on {len(self.classes)} classes; give labels, one an image.")
        given = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else labels
        wanted = [given] * n if isinstance(given, int | str) else list(given)
        if len(wanted) != n:
            raise ValueError(f"{len(wanted)} labels for {n} images of {self.name}; give one for each, or one for all.")
        try:
            numbers = class_numbers(wanted, self.classes)
        except ValueError as error:
            raise ValueError(f"{self.name} has {error}.") from error
        return torch.tensor(numbers, device=self.device)
