"""What a trained run takes: images of the model's shape and levels, and latents of its layers."""

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from torch import Tensor

from lvae_torch.data.shapes import ImageShape
from lvae_torch.models.contract import Shape
from lvae_torch.synthesis.section import Temperature
from lvae_torch.synthesis.temperatures import per_layer


def checked_images(x: Tensor, name: str, image_shape: ImageShape, n_levels: int) -> Tensor:
    """x, if it is images (N, C, H, W) as the run ``name`` takes them; ``n_levels`` is 0 for continuous values.

    Raises:
        TypeError: if x is not a tensor of floats.
        ValueError: if x has another shape than the model's images, or values outside [0, 1].
    """
    check_floats(x)
    if x.ndim != 4 or not len(x) or tuple(x.shape[1:]) != image_shape:
        wanted = ", ".join(map(str, image_shape))
        raise ValueError(f"images have shape {tuple(x.shape)}; {name} needs (N, {wanted}) with N >= 1.")
    if n_levels and not ((x >= 0) & (x <= 1)).all():  # NaN is outside too
        raise ValueError(f"images have values from {x.min():g} to {x.max():g}; scale them to [0, 1].")
    return x


def checked_shape(image_shape: object) -> ImageShape:
    """(C, H, W).

    Raises:
        ValueError: if it is not three whole numbers above 0.
    """
    given = tuple(image_shape) if isinstance(image_shape, Iterable) else ()
    match [int(side) for side in given if isinstance(side, Integral) and int(side) > 0]:
        case [channels, height, width] if len(given) == 3:
            return channels, height, width
    raise ValueError(f"image_shape is {image_shape!r}; give three whole numbers above 0, (C, H, W).")


def checked_levels(levels: object) -> int:
    """The number of pixel levels; 0 for continuous values.

    Raises:
        ValueError: if there can be no such number.
    """
    if not isinstance(levels, Integral) or levels < 0 or levels == 1:
        raise ValueError(f"levels is {levels!r}; give the values that a pixel can have, 2 or more, or 0 for any value.")
    return int(levels)


def check_floats(x: Tensor) -> None:
    """Check that images are floats.

    Raises:
        TypeError: if they are not.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"images are {kind}; give a torch tensor of floats in [0, 1], such as pixels / 255.")


def check_levels(x: Tensor, name: str, n_levels: int) -> None:
    """Check that images have no values between the pixel levels.

    Raises:
        ValueError: if they have.
    """
    steps = x * (n_levels - 1)
    if ((steps - steps.round()).abs() > 0.01).any():
        remedy = "binarize them, (x >= 0.5).float()" if n_levels == 2 else f"round them to k / {n_levels - 1}"
        raise ValueError(f"images have values between the {n_levels} pixel levels of {name}; {remedy}.")


def check_latents(latents: Sequence[Tensor], name: str, shapes: Sequence[Shape], n_layers: int | None = None) -> None:
    """Check latents of the top ``n_layers`` of ``shapes``, or of all.

    Raises:
        TypeError: if they are no list of tensors of real numbers.
        ValueError: if their number or a shape is another, there is nothing in them, or a value is not finite.
    """
    if not isinstance(latents, list | tuple):
        raise TypeError(f"latents are {type(latents).__name__}; give a list of torch tensors, one for each layer.")
    for i, z in enumerate(latents):
        if not isinstance(z, Tensor):
            raise TypeError(f"latent {i} is {type(z).__name__}; give torch tensors, such as torch.from_numpy(z).")
        if z.is_complex():
            raise TypeError(f"latent {i} is {z.dtype}; give real numbers.")
        if not z.isfinite().all():
            raise ValueError(f"latent {i} has values that are not finite; give numbers in their place.")
    given = [tuple(z.shape[1:]) for z in latents]
    counts = {len(z) for z in latents}
    if not given or given != list(shapes[:n_layers]) or len(counts) != 1 or 0 in counts:
        wanted = ", ".join(f"(N, {', '.join(map(str, shape))})" for shape in shapes) or "no latents"
        told = ", ".join(str(tuple(z.shape)) for z in latents) or "none"
        raise ValueError(f"{len(given)} latents of shapes {told}; {name} has {wanted}, top layer first.")


def check_codes(latents: Sequence[Tensor], name: str, n_codes: int) -> None:
    """Check latents that are codes.

    Raises:
        ValueError: if one is no whole number from 0 to ``n_codes`` - 1.
    """
    for i, z in enumerate(latents):
        if not ((z >= 0) & (z < n_codes) & (z == z.long())).all():
            wanted = f"whole numbers from 0 to {n_codes - 1}"
            raise ValueError(f"latent {i} has other values than {name}'s codes, {wanted}.")


def check_count(value: object, what: str, least: int) -> None:
    """Check the number of images to draw, of the first, or of samples.

    Raises:
        TypeError: if it is no whole number.
        ValueError: if it is less than ``least``.
    """
    if not isinstance(value, Integral):
        raise TypeError(f"{what} is {value!r}; give a whole number.")
    if value < least:
        raise ValueError(f"{what} is {value}; give {least} or more.")


def checked_temperatures(temperature: Temperature | Tensor | np.ndarray, n_layers: int) -> tuple[float, ...]:
    """One temperature for each layer, top first; see ``per_layer``.

    Raises:
        ValueError: if they are not numbers of 0 or more, or not as many as layers.
    """
    plain: Any = temperature.tolist() if isinstance(temperature, Tensor | np.ndarray) else temperature
    given = tuple(plain) if isinstance(plain, list | tuple) else (plain,)
    numbers = given[1:] if given[0:1] == ("linear",) else given
    if not all(isinstance(t, Real) and 0 <= float(t) < math.inf for t in numbers):
        raise ValueError(f"temperature = {temperature!r}; each must be a number, 0 or more.")
    return per_layer(float(plain) if isinstance(plain, Real) else plain, n_layers)
