"""The contract of every model family: one call, and the record it returns.

    out = model(x, source)               # x: (B, C, H, W) in [0, 1]
    out = model(None, source, n=16)      # nothing to encode: generate
    out = model(x, of_classes(source, labels))   # a class-conditional model
    out = model(x, source, samples=10)   # 10 draws of each image

``model(x, source, n)`` is ``model.decode(model.encode(x), source, n)``; several samples of an image, and an
importance-weighted bound, encode it once and decode it many times. All values are in nats per image; layers are listed
top first.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions.codes import CertainCodes, UniformCodes
from lvae_torch.distributions.gaussian import DiagonalGaussian
from lvae_torch.models.layout import copies
from lvae_torch.models.rematerialization import rematerialize

Shape = tuple[int, ...]
Features = tuple[Tensor, ...]  # bottom-up activations, top layer first, each (B, ...)


class Prior(Protocol):
    """p(z_i | z_above): ``DiagonalGaussian``, ``UniformCodes``, or any distribution with these methods."""

    @property
    def mean(self) -> Tensor:
        """The value to use when nothing is drawn, (B, ...): the mean, or if it is unknown, the draw of zero noise."""

    def at_noise(self, eps: Tensor) -> Tensor:
        """The draw that corresponds to standard normal noise ``eps``, (B, ...)."""

    def noise_of(self, z: Tensor) -> Tensor:
        """The standard normal noise whose draw is z, (B, ...); undoes ``at_noise``."""

    def rsample(self, temperature: float = 1.0) -> Tensor:
        """A draw, (B, ...); ``temperature`` scales its noise."""

    def filled(self, z: Tensor, keep: Tensor, temperature: float = 1.0) -> Tensor:
        """z where ``keep``, a mask that broadcasts to it, is on; elsewhere a draw given the entries before it."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Element-wise terms, (B, ...), whose sum over the entries of a draw is log p(z) in nats."""


Posterior = DiagonalGaussian | CertainCodes
Source = Callable[[int, Prior, Posterior | None], Tensor]  # (i, prior, posterior) -> z_i


@dataclass(frozen=True)
class OfClasses:
    """A source that also knows the class of each image, which a class-conditional model asks for."""

    source: Source
    labels: Tensor  # int64 (B,), each in 0 .. K - 1

    def __call__(self, i: int, prior: Prior, posterior: Posterior | None) -> Tensor:
        return self.source(i, prior, posterior)


def of_classes(source: Source, labels: Tensor | None) -> Source:
    """``source`` for images of these classes, int64 (B,), on the model's device; of an unconditional model, None."""
    return source if labels is None else OfClasses(source, labels)


class Likelihood(Protocol):
    """p(x | z), with x in [0, 1]."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats per image, (B,)."""

    def mean(self) -> Tensor:
        """E[x | z], (B, C, H, W)."""

    def mode(self) -> Tensor:
        """The most probable x or an approximation of it, (B, C, H, W)."""

    def sample(self, *, temperature: float = 1.0) -> Tensor:
        """One draw of x, (B, C, H, W); ``temperature`` > 0 widens or narrows the distribution."""


@runtime_checkable
class InOrder(Protocol):
    """A likelihood that is known position by position: each depends on the pixels before it."""

    def in_order(self, choose: Callable[[int, int, Any], Tensor]) -> Tensor:
        """The levels that ``choose(row, column, p)`` gives for each position, in order, int64 (B, 1, H, W).

        p is the position's ``Categorical``, and what is chosen int64 (B, 1, 1, 1).
        """


@dataclass(frozen=True)
class Latent:
    """One latent layer after the top-down pass."""

    z: Tensor  # (B, Z, H, W), or (B, D) in fully-connected models
    prior: Prior  # p(z_i | z_above)
    posterior: Posterior | None = None  # q(z_i | z_above, x); None if x was not given

    @property
    def kl(self) -> Tensor:
        """KL(q || p), nats, (B,)."""
        return per_image(self.kl_of_units)

    @property
    def kl_of_units(self) -> Tensor:
        """KL(q || p), nats, element-wise: in closed form between Gaussians, and between codes.

        Other priors have no closed form and use log q - log p at the sample: unbiased, but a single value can be
        negative.
        """
        match self.encoded, self.prior:
            case DiagonalGaussian() as q, DiagonalGaussian() as p:
                return q.kl(p)
            case CertainCodes() as q, UniformCodes() as p:
                return q.kl(p)
        return self._log_ratio_of_units

    @property
    def log_ratio(self) -> Tensor:
        """log q(z) - log p(z) at the sample, nats, (B,), as importance weights need it."""
        return per_image(self._log_ratio_of_units)

    @property
    def _log_ratio_of_units(self) -> Tensor:
        match self.encoded, self.prior:
            case DiagonalGaussian() as q, DiagonalGaussian() as p:
                return q.log_ratio(p, self.z)
        return self.encoded.log_prob(self.z) - self.prior.log_prob(self.z)

    @property
    def encoded(self) -> Posterior:
        """The posterior; only a pass that was given x has one."""
        assert self.posterior is not None, "no posterior: this pass was given no x"
        return self.posterior


@dataclass(frozen=True)
class Output:
    """The result of one top-down pass."""

    likelihood: Likelihood
    latents: tuple[Latent, ...]  # top layer first
    penalties: Mapping[str, Tensor] = field(default_factory=dict)  # trained on, no part of the ELBO, each (B,)
    as_published: Callable[[], Likelihood] | None = None
    """p(x | z) with the approximations that the family's published numbers were scored with; None in training."""


class Model(nn.Module, ABC):
    """A model as training and synthesis see it. A family writes ``encode``, ``decode`` and ``latent_shapes``."""

    blocks: ClassVar[tuple[type[nn.Module], ...]] = ()
    """Types of the blocks that ``rematerialize`` recomputes; they must not be nested."""

    top_first: ClassVar[tuple[str, ...]] = ()
    """Lists of modules that run from the top down: weights of a model of another depth are matched from their ends."""

    published: Callable[[Tensor], Likelihood] | None = None
    """What makes ``Output.as_published`` of the network's output, where the family's numbers were scored otherwise."""

    def __init__(self, image_shape: ImageShape, in_bits: bool, n_classes: int = 0) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.in_bits = in_bits
        """Whether p(x|z) is a probability of pixel levels; only then are bits per dimension defined."""
        self.n_classes = n_classes
        """Classes that the model is conditional on: its sources are ``of_classes``; 0 for an unconditional model."""

    @abstractmethod
    def encode(self, x: Tensor) -> Features:
        """The deterministic bottom-up pass over x, (B, C, H, W).

        Raises:
            ValueError: if x has another shape than the model was built for.
        """

    @abstractmethod
    def decode(self, features: Features | None, source: Source, n: int | None = None) -> Output:
        """The top-down pass; without features it generates ``n`` images.

        Raises:
            ValueError: if neither features nor ``n`` is given.
        """

    @abstractmethod
    def latent_shapes(self) -> tuple[Shape, ...]:
        """Shape of each z without the batch dimension, top layer first."""

    def forward(self, x: Tensor | None, source: Source, n: int | None = None, samples: int = 1) -> Output:
        """``decode(encode(x), source, n)``. One call, because ``compile`` and half weights take hold of ``forward``.

        Args:
            samples: draws of each image, which is encoded once: the output is of x ``samples`` times (``copies``).
        Raises:
            ValueError: if the source has classes, and the model is not conditional on any.
        """
        if isinstance(source, OfClasses) and not self.n_classes:
            raise ValueError("labels given to a model that is not class-conditional; leave them out.")
        features = None if x is None else tuple(copies(feature, samples) for feature in self.encode(x))
        return self.decode(features, source, n)

    @property
    def n_dims(self) -> int | None:
        """C * H * W, the divisor of bits per dimension; None if the likelihood has no bits per dimension."""
        return math.prod(self.image_shape) if self.in_bits else None

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of what latent maps cover: the image, or the image in the middle of its padding."""
        return self.image_shape[1:]

    def as_published(self, params: Tensor) -> Callable[[], Likelihood] | None:
        """For ``Output``, from the network's output."""
        return None if self.training or self.published is None else partial(self.published, params)

    def labels_from(self, source: Source, n: int) -> Tensor | None:
        """The classes of the ``n`` images of a pass, int64 (n,); None in an unconditional model.

        Raises:
            ValueError: if the model is conditional, and the source has no classes or those of another number of images.
        """
        if not self.n_classes:
            return None
        if not isinstance(source, OfClasses):
            raise ValueError(
                f"a model conditional on {self.n_classes} classes needs labels: of_classes(source, labels)."
            )
        if source.labels.shape != (n,):
            raise ValueError(f"labels of shape {tuple(source.labels.shape)} for {n} images; give one for each.")
        return source.labels

    def of_any_class(self, source: Source, n: int) -> Source:
        """``source`` for ``n`` images where any classes will do: all of class 0; itself for an unconditional model."""
        return of_classes(source, self.any_class(n))

    def any_class(self, n: int) -> Tensor | None:
        """Class 0 for ``n`` images, int64 (n,); None for an unconditional model."""
        return torch.zeros(n, dtype=torch.int64, device=next(self.parameters()).device) if self.n_classes else None

    @property
    def starts_from_data(self) -> bool:
        """Whether ``initialize`` does anything."""
        return False

    def initialize(self, x: Tensor, bound: float | None = None, labels: Tensor | None = None) -> None:
        """Data-dependent initialisation from one batch x, (B, C, H, W); does nothing by default.

        Args:
            bound: the most that a layer is scaled up or down; None for no bound.
            labels: class of each image, (B,), of a class-conditional model.
        """

    def rematerialize(self) -> None:
        """Save memory in the backward pass: each of ``blocks`` recomputes its activations."""
        rematerialize(self, *self.blocks)

    def block_weights(self) -> list[Tensor]:
        """The only weights that decay if ``[optimizer] weight_decay_on = blocks``; empty by default."""
        return []

    def check_images(self, x: Tensor) -> None:
        """Raises ValueError if x, (B, C, H, W), has another shape than the model was built for."""
        if tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(f"images of shape {tuple(x.shape[1:])} given to a model built for {self.image_shape}.")


def per_image(units: Tensor) -> Tensor:
    """The sum over all entries of each image, (B, ...) -> (B,); entries are not moved, whatever their layout."""
    return units.sum(dim=tuple(range(1, units.dim())))


def batch_size(features: Features | None, n: int | None) -> int:
    """Number of images of a top-down pass: as many as were encoded, or ``n``.

    Raises:
        ValueError: if neither is given.
    """
    if features is not None:
        return features[0].shape[0]
    if n is None:
        raise ValueError("say how many images to generate: model(None, source, n=16).")
    return n
