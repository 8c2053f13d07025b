"""The session: everything that an inference mode works with."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.classes import class_numbers, rows_of
from lvae_torch.data.images import Images
from lvae_torch.distributed.processes import Processes
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Likelihood, Model, Output, Shape, Source, of_classes
from lvae_torch.reporting.progress import shown
from lvae_torch.synthesis.codes import CodePrior, CodeSource
from lvae_torch.synthesis.identity import check_belongs
from lvae_torch.synthesis.parts import Format, Parts
from lvae_torch.synthesis.section import SynthesisSection
from lvae_torch.synthesis.singles import SINGLES, TARGETS, single_names

T = TypeVar("T")
Batch = tuple[np.ndarray, Tensor]
"""Indices of images in the split, (b,), and the images as x, (b, C, H, W)."""


@dataclass(frozen=True)
class Session:
    """A trained model, options, images and the folder for results. Noise does not depend on the number of ranks."""

    model: Model
    options: SynthesisSection
    processes: Processes
    out: Path
    identity: Mapping[str, Any]
    """Run, checkpoint and data, which are written beside every result."""
    given_images: Images | None = None
    labels: np.ndarray | None = None
    """Class of each image of the split, where the dump has them."""
    classes: Sequence[str] = ()
    """Names of the classes that the model is conditional on; empty for an unconditional model."""
    label_names: Sequence[str] = ()
    """Of the classes, or of the columns where an image has several labels."""
    steps_per_epoch: int = 1
    val_split: str = "test"
    """The split that training evaluated."""
    names: Sequence[str] | None = None
    """File name of each image of the split; None if the dump has no names."""
    prior: CodePrior | None = None
    """The prior over codes from ``[synthesis] prior_run``."""
    code_source: CodeSource | None = None
    """The images to encode for ``[synthesis] codes_to``."""
    is_graphed: bool = False
    """Whether to replay passes of the bound as CUDA graphs."""
    cache: Path | None = None
    """Folder for what depends on the images alone, which all runs share."""

    @property
    def images(self) -> Images:
        assert self.given_images is not None, "this mode was opened without a dump"
        return self.given_images

    @property
    def run_folder(self) -> Path:
        return self.out.parent.parent

    @property
    def n_dims(self) -> int | None:
        """C * H * W, the divisor of bits per dimension; None if the likelihood has no bits per dimension."""
        return self.model.n_dims

    @cached_property
    def latent_shapes(self) -> tuple[Shape, ...]:
        """Shape of each z without the batch dimension, top layer first, for modes that need latents.

        Raises:
            CfgError: if the model has no latents.
        """
        if not (shapes := self.model.latent_shapes()):
            raise CfgError(f"{self.identity['run']}: its model has no latents, and {self.out.name} needs them.")
        return shapes

    def batches(self, size: int, mode: str) -> Iterator[tuple[int, np.ndarray, Tensor]]:
        """(j, indices, x) of this rank's batches of the split; torch's generator is seeded for each."""
        for j, indices in self.shown(self.images.batches(size, self.processes), size, len(self.images.indices)):
            yield j, indices, self.x_at(indices, mode, j)

    def n_batches(self, size: int) -> int:
        return self.images.n_batches(size)

    def posterior_batches(self) -> Iterator[tuple[int, Batch]]:
        """(b, batch) of this rank's batches; a mode that draws its latents first draws those that encoding stores."""
        size, own = self.options.batch_size, self.processes
        numbers = range(own.rank, self.n_batches(size), own.world)
        for b in self.shown(numbers, size, len(self.images.indices)):
            yield b, self._posterior_batch(b)

    def n_shards(self, n_images: int) -> int:
        """Number of shards of at most ``n_images`` images; a shard is a whole number of batches, at least one."""
        return -(-self.n_batches(self.options.batch_size) // self._batches_per_shard(n_images))

    def shards(self, n_images: int) -> Iterator[tuple[int, Iterator[Batch]]]:
        """Yield (j, batches) of this rank's shards, with batches as in ``posterior_batches``."""
        size, count = self._batches_per_shard(n_images), self.n_batches(self.options.batch_size)
        numbers = range(self.processes.rank, self.n_shards(n_images), self.processes.world)
        for j in self.shown(numbers, size * self.options.batch_size, len(self.images.indices)):
            yield j, map(self._posterior_batch, range(j * size, min((j + 1) * size, count)))

    def shown(self, work: Iterable[T], per_item: int, total: int) -> Iterator[T]:
        """``work`` of this rank, with its progress; each item is ``per_item`` of ``total``, as on each rank."""
        return shown(work, self.out.name, per_item * self.processes.world, total, self.processes.is_main)

    def _batches_per_shard(self, n_images: int) -> int:
        return max(1, n_images // self.options.batch_size)

    def _posterior_batch(self, b: int) -> Batch:
        size = self.options.batch_size
        indices = self.images.indices[b * size : (b + 1) * size]
        return indices, self.x_at(indices, "posterior", b)

    def pieces(self, numbers: np.ndarray) -> list[np.ndarray]:
        """Numbers (n,) of images in pieces of ``[synthesis] batch_size``, as many as one pass shall take."""
        size = self.options.batch_size
        return np.split(numbers, range(size, len(numbers), size))

    def passed(self, x: Tensor, indices: np.ndarray, source: Source) -> Output:
        """The model's pass over images x of the split at ``indices``; a conditional model is told their classes."""
        out: Output = self.model(x, self.of_images(source, indices))
        return out

    def of_images(self, source: Source, indices: np.ndarray) -> Source:
        """The source for images of the split."""
        return of_classes(source, self.labels_at(indices))

    def labels_at(self, indices: np.ndarray) -> Tensor | None:
        """The classes of images of the split, int64 (b,), on the device; None for an unconditional model."""
        return self.images.labels_at(indices, self.processes.device)

    def chosen(self, numbers: Sequence[int]) -> Tensor | None:
        """The classes of generated images with these numbers, (n,): a row of ``columns`` for each chosen class in turn;
        None for an unconditional model.

        Raises:
            CfgError: if ``[synthesis] classes`` names one that the model does not have.
        """
        if not (chosen := self.chosen_classes):
            return None
        return torch.tensor(rows_of(chosen, numbers, self.options.columns), device=self.processes.device)

    @cached_property
    def chosen_classes(self) -> tuple[int, ...]:
        """``[synthesis] classes`` as numbers, or all; empty for an unconditional model.

        Raises:
            CfgError: if there is no such class.
        """
        wanted, run = self.options.classes, self.identity["run"]
        if wanted and not self.classes:
            raise CfgError(f"[synthesis] classes: run {run} is not class-conditional; leave it out.")
        try:
            return tuple(class_numbers(wanted, self.classes)) or tuple(range(len(self.classes)))
        except ValueError as error:
            raise CfgError(f"[synthesis] classes: run {run} has {error}.") from error

    def x_at(self, indices: np.ndarray, *key: int | str) -> Tensor:
        """Images as x on the device; later draws depend only on the seed and ``key``."""
        seed_everything(*key, self.options.seed)
        return self.images.at(indices, self.processes.device)

    def picture_of(self, likelihood: Likelihood, *key: int | str) -> Tensor:
        """Mean, mode or sample of p(x|z), as ``[synthesis] draw`` says, (B, C, H, W); ``key`` seeds the sample."""
        if key:
            seed_everything("picture", *key, self.options.seed)
        match self.options.draw:
            case "mean":
                return likelihood.mean()
            case "mode":
                return likelihood.mode()
        return likelihood.sample(temperature=self.options.output_temperature)

    @cached_property
    def single_names(self) -> Sequence[str] | None:
        """Name of the picture of each image of the split; None if pictures are named by number."""
        return None if self.names is None else single_names(self.names)

    def parts(
        self, count: int, *options: str, file_format: Format = "npz", said: Mapping[str, object] | None = None
    ) -> Parts:
        """The mode's result files; files of another model, data, ``options`` or ``said`` are removed."""
        parts = Parts(self.out, self.fingerprint(*options, said=said), file_format)
        if self.processes.is_main:
            parts.prepare(count)
            if not any(parts.path(j).is_file() for j in range(count)):
                for folder in (SINGLES, TARGETS):
                    shutil.rmtree(self.out / folder, ignore_errors=True)
        self.processes.barrier()
        return parts

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder for files of rank 0, removed afterwards; after a kill, by the next call."""
        folder = self.out / "scratch"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def fingerprint(self, *options: str, said: Mapping[str, object] | None = None) -> str:
        """A hash of the model, the data, these options and ``said``."""
        chosen = {key: getattr(self.options, key) for key in (*options, "seed", "use_ema")}
        whole = {**self.identity, **chosen, **(said or {})}
        return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()

    def check_belongs(self, other: Mapping[str, Any], path: Path, remedy: str) -> None:
        """Check that a file was made with this model.

        Raises:
            DataError: naming ``path``, both models and the ``remedy``, if not.
        """
        check_belongs(other, self.identity, path, remedy)


def n_rounds(session: Session, n: int, size: int) -> Iterator[tuple[int, int]]:
    """(j, count) of this rank's parts of ``n`` things in parts of ``size``."""
    numbers = range(session.processes.rank, -(-n // size), session.processes.world)
    for j in session.shown(numbers, size, n):
        yield j, min(size, n - j * size)
