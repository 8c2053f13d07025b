"""The run that is explored, with the images that the page may choose: those of its dataset, and what was dropped."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.run_data import open_dump
from lvae_torch.data.shapes import POINT
from lvae_torch.errors import CfgError, DataError
from lvae_torch.explore.requests import MOST_IMAGES, MOST_POINTS, Image, OfPoint, OfSeed, OfSplit, OfUpload
from lvae_torch.reporting.plane import Bounds, bounds_of
from lvae_torch.trained.run import TrainedRun

MOST_UPLOADS = 64  # the newest are kept
MOST_VALUES = 2**24  # pixels of all images of one picture
N_CODED = 500  # images whose latents are drawn behind others
N_BEHIND = 1000  # points of the data that are drawn behind others


class RefusedError(Exception):
    """A request that this run cannot answer; the message is for the person at the page."""


@dataclass(frozen=True)
class Chosen:
    """An image for the model."""

    x: Tensor  # (1, C, H, W)
    line: str
    """The Python expression that gives x."""
    told: str
    """What it is."""


@dataclass(frozen=True)
class Upload:
    """An image that was dropped."""

    x: Tensor
    name: str
    told: str
    """What was done to it."""


@dataclass
class Stage:
    """A run on show."""

    run: TrainedRun
    opened: str
    """The Python expression that opens the run."""
    uploads: OrderedDict[str, Upload] = field(default_factory=OrderedDict)

    of_classes: dict[int, "Stage"] = field(default_factory=dict)
    """Of a class-conditional run: itself with one class, for each that was looked at."""

    def in_class(self, label: int | None, subject: Image | None) -> "Stage":
        """Itself, or of a class-conditional run itself with the class ``label``.

        Args:
            subject: the image whose own class is taken if ``label`` is None; class 0 if it has none.
        Raises:
            RefusedError: if there is no such class or image.
        """
        classes = self.run.classes
        if not classes and label is None:
            return self
        label = self._class_of(subject) if label is None else label
        if label >= len(classes):
            raise RefusedError(f"There is no class {label}: {self._classes_told}.")
        if label not in self.of_classes:
            self.of_classes[label] = replace(
                self, run=self.run.of_class(label), opened=f"{self.opened}.of_class({label})"
            )
        return self.of_classes[label]

    def _class_of(self, subject: Image | None) -> int:
        if not isinstance(subject, OfSplit):
            return 0
        self._check(subject)
        return int(self.run.labels(subject.split, at=[subject.index])[0])

    @property
    def _classes_told(self) -> str:
        count = len(self.run.classes)
        return f"this run has classes 0 to {count - 1}" if count else "this run is not class-conditional"

    @property
    def identity(self) -> dict[str, Any]:
        """Which model is on show, and of which class."""
        label = self.run.label
        return self.run.identity | ({} if label is None else {"class": self.run.classes[label]})

    @property
    def n_layers(self) -> int:
        return len(self.run.latent_shapes)

    @property
    def are_points(self) -> bool:
        """Whether x are points of the plane."""
        return self.run.model.image_shape == POINT

    @property
    def most_images(self) -> int:
        """Images that one picture may show."""
        if self.are_points:
            return MOST_POINTS
        return max(1, min(MOST_IMAGES, MOST_VALUES // prod(self.run.model.image_shape[1:])))

    @cached_property
    def splits(self) -> Mapping[str, int]:
        """Number of images of each split of the run's dataset; empty if it is not here."""
        try:
            dump = open_dump(self.run.settings.data)
            self.run.preprocess_of(dump)
        except (DataError, CfgError) as error:
            self.without_images = str(error)
            return {}
        first = self.run.settings.data.val_split
        counts = dump.counts
        return {split: counts[split] for split in sorted(counts, key=lambda split: split != first)}

    without_images: str = ""
    """Why there are no images of the dataset."""

    @cached_property
    def behind(self) -> np.ndarray:
        """Points (n, 2) to draw behind others: of the dataset, or else samples."""
        x = self.run.images(limit=N_BEHIND) if self.splits else self.run.sample(N_BEHIND, seed=0, show="sample")
        return x.flatten(1).cpu().numpy()

    @property
    def behind_line(self) -> str:
        """The Python expression of ``behind``."""
        return f"run.images(limit={N_BEHIND})" if self.splits else f'run.sample({N_BEHIND}, seed=0, show="sample")'

    @cached_property
    def bounds(self) -> Bounds:
        """Of the plane of x."""
        return bounds_of(self.behind)

    @cached_property
    def coded(self) -> Tensor:
        """Noise of the top layer, (n, ...), to draw behind a plane of latents: of the dataset, or else of samples."""
        z = self.run.encode(self.run.images(limit=N_CODED)) if self.splits else self.run.draw(N_CODED, seed=0)
        return self.run.noise(z)[0]

    @property
    def coded_told(self) -> tuple[str, str]:
        """What ``coded`` is, and its Python expression."""
        if self.splits:
            return "encodings of the data", f"run.noise(run.encode(run.images(limit={N_CODED})))[0]"
        return "draws of the prior", f"run.noise(run.draw({N_CODED}, seed=0))[0]"

    def begin(self, *imports: str) -> str:
        """The first lines of a Python program."""
        lines = ["from pathlib import Path", "", *sorted(imports), "import lvae_torch"]
        return "\n".join([*lines, "", f"run = {self.opened}", ""])

    def keep_upload(self, data: bytes, name: str) -> tuple[str, Upload]:
        """Fit a picture to the model, and keep it under a name that only its pixels decide.

        Raises:
            RefusedError: if it is no picture that can be read.
        """
        try:
            x, told = self.run.fit.of_bytes(data, name)
        except DataError as error:
            raise RefusedError(str(error)) from error
        key = hashlib.sha256(x.numpy().tobytes()).hexdigest()[:16]
        upload = Upload(x.to(self.run.device), name, told)
        self.uploads[key] = upload
        self.uploads.move_to_end(key)
        while len(self.uploads) > MOST_UPLOADS:
            self.uploads.popitem(last=False)
        return key, upload

    def image(self, asked: Image) -> Chosen:
        """The image that the page chose.

        Raises:
            RefusedError: if there is none such.
        """
        match asked:
            case OfSplit(split=split, index=index):
                self._check(asked)
                x = self.run.images(split, at=[index])
                return Chosen(x, f'run.images("{split}", at=[{index}])', f"image {index:,} of {split}")
            case OfUpload(upload=key):
                if (found := self.uploads.get(key)) is None:
                    raise RefusedError("This picture is not here any more: drop it onto the page again.")
                return Chosen(found.x, f"run.picture({found.name!r})", f"{found.name}: {found.told}")
            case OfSeed(seed=seed):
                if self.are_points:
                    x, line = self.run.sample(1, seed=seed, show="sample"), f'run.sample(1, seed={seed}, show="sample")'
                else:
                    x, line = (
                        self.run.to_levels(self.run.sample(1, seed=seed)),
                        f"run.to_levels(run.sample(1, seed={seed}))",
                    )
                return Chosen(x, line, f"a sample of the model, seed {seed}")
            case OfPoint(point=(a, b)):
                if not self.are_points:
                    raise RefusedError("This run's images are no points of the plane; choose an image.")
                line = f"torch.tensor([{a!r}, {b!r}]).view(1, 2, 1, 1).to(run.device)"
                x = torch.tensor([a, b]).view(1, 2, 1, 1).to(self.run.device)
                return Chosen(x, line, f"the point ({a:g}, {b:g})")

    def _check(self, asked: OfSplit) -> None:
        if not (counts := self.splits):
            raise RefusedError(f"The dataset is not here: {self.without_images}")
        if asked.index >= counts.get(asked.split, 0):
            known = ", ".join(f"{name} has 0 to {count - 1:,}" for name, count in counts.items())
            raise RefusedError(f"There is no image {asked.index} in {asked.split!r}: {known}.")

    def layer(self, number: int) -> tuple[int, ...]:
        """The shape of a layer.

        Raises:
            RefusedError: if there is no such layer.
        """
        if number >= self.n_layers:
            raise RefusedError(f"There is no layer {number}: this run has layers 0 (top) to {self.n_layers - 1}.")
        return self.run.latent_shapes[number]

    def temperature(self, asked: Any) -> Any:
        """A temperature that fits the run.

        Raises:
            RefusedError: if it is a list of another length.
        """
        if isinstance(asked, list) and len(asked) != self.n_layers:
            raise RefusedError(f"{len(asked)} temperatures; this run has {self.n_layers} layers. Give one for each.")
        return asked
