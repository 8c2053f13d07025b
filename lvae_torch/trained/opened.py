"""A trained run as it was opened: model, settings, images, and checks of what people give to it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.classes import with_labels
from lvae_torch.data.dump import Dump
from lvae_torch.data.images import Images
from lvae_torch.data.labelled import Labelled
from lvae_torch.data.run_data import make_preprocess, open_dump
from lvae_torch.data.transforms import Preprocess
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.errors import DataError
from lvae_torch.hparams import Settings
from lvae_torch.models.contract import Model, Shape, Source, of_classes
from lvae_torch.runs.checkpoint import TrainedOn
from lvae_torch.synthesis.codes import CodePrior, code_grid
from lvae_torch.trained.checking import check_codes, check_latents, check_levels, checked_images
from lvae_torch.trained.labels import Labels, checked_labels
from lvae_torch.trained.pictures import Fit


@dataclass(frozen=True)
class Opened:
    """A trained model with its settings, and the images that it was trained on."""

    settings: Settings
    """The settings of the training."""
    model: Model
    """In evaluation mode, on ``device``."""
    step: int
    """Training steps that led to the weights."""
    is_averaged: bool
    """Whether the weights are the moving average."""
    trained_on: TrainedOn
    place: Path
    """The run's folder, or the bundle's."""
    device: torch.device
    prior: CodePrior | None = None
    """The trained prior over the codes of a VQ-VAE, of ``[synthesis] prior_run``; codes are uniform without it."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the programs that trained it, and the commit of ours, where they are known."""
    label: int | None = None
    """Of a class-conditional model: the class of all images whose labels are not given; see ``of_class``."""

    @property
    def name(self) -> str:
        return self.settings.run.name

    @property
    def identity(self) -> dict[str, Any]:
        """Which model this is, as it stands beside every result."""
        weights = "ema" if self.is_averaged else "raw"
        return {"run": self.name, "step": self.step, "weights": weights, "trained_on": self.trained_on.told}

    @property
    def model_settings(self) -> str:
        """The settings that make the model, as JSON: with the weights, all that tells it from others."""
        return self.settings.model.model_dump_json()

    @property
    def latent_shapes(self) -> tuple[Shape, ...]:
        """Shape of each z without the batch dimension, top layer first."""
        return self.model.latent_shapes()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes 0, 1, ... that the model is conditional on; empty for an unconditional model."""
        return tuple(self.trained_on.classes)

    def of_class(self, label: int | str) -> Self:
        """The same run with a class, by number or name, for all images whose labels are not given.

        Raises:
            ValueError: if the model is not class-conditional, or there is no such class.
        """
        told = checked_labels(label, 1, self.name, self.classes)
        assert told is not None, "an unconditional model takes no labels"
        return replace(self, label=int(told[0]))

    def images(self, split: str | None = None, limit: int = 0, at: Sequence[int] | None = None) -> Tensor:
        """Images of the run's dataset as the model sees them, (N, C, H, W).

        Args:
            split: a split of the dump; the run's validation split if not given.
            limit: number of images, spread evenly over the split; 0 for all.
            at: the images with these numbers, from 0 on, instead.
        Raises:
            DataError: if the dump or the split is missing, or has no image of such a number.
        """
        return self._labelled(split, limit, at, ()).images

    def labels(self, split: str | None = None, limit: int = 0, at: Sequence[int] | None = None) -> Tensor:
        """Classes of the images that ``images`` gives with the same arguments, int64 (N,).

        Raises:
            ValueError: if the model is not class-conditional.
            DataError: if the dump or the split is missing, or its labels are not of the model's classes.
        """
        if (labels := self._labelled(split, limit, at, self.classes).labels) is None:
            raise ValueError(f"{self.name} is not class-conditional.")
        return labels

    def _labelled(self, split: str | None, limit: int, at: Sequence[int] | None, classes: Sequence[str]) -> Labelled:
        dump = open_dump(self.settings.data)
        chosen = with_labels(dump.split(split or self.settings.data.val_split), dump, classes, at)
        images = Images(chosen, self.preprocess_of(dump), limit)
        if at is None:
            return images.labelled(images.indices, self.device)
        if wrong := [k for k in at if not 0 <= k < len(chosen)]:
            raise DataError(f"{dump.folder}: {chosen.name} has images 0 to {len(chosen) - 1:,}, none {wrong[0]}.")
        return images.labelled(np.array(at, dtype=np.int64), self.device)

    def preprocess_of(self, dump: Dump) -> Preprocess:
        """The preprocessing of the run, for a dump.

        Raises:
            DataError: if shape or levels differ from the images that the run was trained on.
        """
        on = self.trained_on
        if dump.image_shape != on.image_shape:
            raise DataError(f"{dump.folder}: images {dump.image_shape}; the run was trained on {on.image_shape}.")
        preprocess = make_preprocess(self.settings.data, dump.n_levels)
        if preprocess.levels_after != on.n_levels:
            raise DataError(
                f"{dump.folder}: {preprocess.levels_after} levels after [data] binarize and n_bits, but the run was "
                f"trained on {on.n_levels}. Set them as they were."
            )
        return preprocess

    def picture(self, path: str | Path) -> Tensor:
        """A picture file as the model sees images, (1, C, H, W): cropped and scaled as the run's dump was.

        Raises:
            DataError: if it is no picture that can be read.
        """
        return self.fit.of_file(Path(path)).to(self.device)

    @cached_property
    def fit(self) -> Fit:
        """How pictures become images of the run."""
        return Fit.of(self.settings.data, self.trained_on.image_shape, self.trained_on.n_levels)

    @property
    def _size(self) -> int:
        return self.settings.synthesis.batch_size

    @contextmanager
    def _noise(self, seed: int | None) -> Iterator[None]:
        if seed is None:
            yield
            return
        cards = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # torch seeds all of them
        with torch.random.fork_rng(list(cards)):
            seed_everything("python", seed)
            yield

    def _checked(self, x: Tensor) -> Tensor:
        n_levels = self.trained_on.n_levels
        return checked_images(x, self.name, self.model.image_shape, n_levels).to(self.device, torch.get_default_dtype())

    def _on_levels(self, x: Tensor) -> Tensor:
        """The same for likelihoods, which need values on the pixel levels."""
        x = self._checked(x)
        if self.model.in_bits:
            check_levels(x, self.name, self.trained_on.n_levels)
        return x

    def _checked_latents(self, latents: Sequence[Tensor], n_layers: int | None = None) -> list[Tensor]:
        """The latents of the top ``n_layers``, or of all, on the device: floats, or codes as int64."""
        if self._n_codes is None:
            return self._checked_noise(latents, n_layers)
        check_latents(latents, self.name, self.latent_shapes, n_layers)
        check_codes(latents, self.name, self._n_codes)
        return [z.to(self.device, torch.int64) for z in latents]

    def _checked_noise(self, noise: Sequence[Tensor], n_layers: int | None = None) -> list[Tensor]:
        """Floats in the shapes of the latents, on the device."""
        check_latents(noise, self.name, self.latent_shapes, n_layers)
        return [eps.to(self.device, torch.get_default_dtype()) for eps in noise]

    @cached_property
    def _n_codes(self) -> int | None:
        """How many codes there are; None if the latents are none."""
        return grid[1] if (grid := code_grid(self.model)) else None

    def _parts(self, x: Tensor, labels: Labels | None) -> list[tuple[Tensor, Tensor | None]]:
        """Images and their classes, (b,), as many as one pass takes."""
        return list(zip(x.split(self._size), self._told(labels, len(x)), strict=True))

    def _told(self, labels: Labels | None, n: int) -> Sequence[Tensor | None]:
        """The classes of ``n`` images, in the parts of the passes; None for each of an unconditional model."""
        told = self._checked_labels(labels, n)
        return [None] * -(-n // self._size) if told is None else told.to(self.device).split(self._size)

    def _of(self, source: Source, labels: Labels | None, n: int) -> Source:
        """The source for ``n`` images of these classes, in one pass."""
        told = self._checked_labels(labels, n)
        return source if told is None else of_classes(source, told.to(self.device))

    def _checked_labels(self, labels: Labels | None, n: int) -> Tensor | None:
        return checked_labels(self.label if labels is None else labels, n, self.name, self.classes)
