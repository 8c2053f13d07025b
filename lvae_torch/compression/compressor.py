"""Compression with a model: images in, an archive out, and back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lvae_torch.compression.archive import Archive, Written, open_archive, write_archive
from lvae_torch.compression.calibration import calibrate
from lvae_torch.compression.chain import Chain, LevelSource, most_in_a_batch
from lvae_torch.compression.codec import Codec
from lvae_torch.compression.conditions import (
    conditions,
    device_of,
    dtype_of,
    fingerprint,
    reproducible,
    widened,
)
from lvae_torch.compression.header import VERSION, GridRecord, Header
from lvae_torch.compression.latents import Grid
from lvae_torch.compression.rounding import Rounding
from lvae_torch.data.order import spread
from lvae_torch.distributed.place import float64_device
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.errors import CfgError, DataError
from lvae_torch.models.contract import Model

BATCH = 64
CALIBRATED_ON = 32  # images, evenly spread


@dataclass(frozen=True)
class Contents:
    """What is compressed, as the header tells it."""

    source: str
    run: str = ""
    index: bytes = b""
    """The packed list of pictures; empty for plain images."""


@dataclass(frozen=True)
class Compressor:
    """A trained model, and what tells it from others."""

    model: Model
    n_levels: int
    """Levels of a pixel."""
    told: str = ""
    """The settings that make the model, or what else weights do not say."""

    def __post_init__(self) -> None:
        """Refuse what cannot be compressed without loss.

        Raises:
            CfgError: if the model has no probability of pixel levels, or classes, or lies where there is no float64.
        """
        if (device := device_of(self.model)) != float64_device(device):
            raise CfgError(f"compression computes in float64, and {device} has none; add --set \"run.device='cpu'\".")
        if not self.model.in_bits:
            raise CfgError(
                "the model's p(x|z) is no probability of pixel levels, so its images cannot be compressed without "
                "loss. Of a VQ-VAE the codes can: write them with [synthesis] codes_to, and compress that dump with a "
                "PixelCNN."
            )
        if self.model.n_classes:
            raise CfgError(
                "a class-conditional model cannot compress: archives have no classes. Train one with [model] "
                "class_embedding = none."
            )

    def compress(
        self, source: LevelSource, path: Path, contents: Contents, batch: int = BATCH, is_robust: bool = False
    ) -> Written:
        """Write an archive of all images of ``source``.

        Args:
            batch: images in one pass of the networks, at most.
            is_robust: compute in float64 and round, so that other processors can decode; takes longer.
        Raises:
            CfgError: if the model cannot compress, or the batch is too large.
            DataError: if there are no images, or the file cannot be written.
        """
        most = most_in_a_batch(self.model.image_shape)
        if not 1 <= batch <= most:
            raise CfgError(f"batch is {batch}; with images of {self.model.image_shape} use 1 to {most}.")
        if len(source) == 0:
            raise DataError(f"{contents.source}: no images.")
        threads = torch.get_num_threads()
        with reproducible(self.model, threads):
            model, rounding = self._computing(is_robust)
            unready = self._codec(model, (), rounding)
            calibration = calibrate(model, unready.scaled(_some(source).to(unready.device)))
            header = Header(
                version=VERSION,
                contents="pictures" if contents.index else "images",
                source=contents.source[:256],
                run=contents.run[:4096],
                n_images=len(source),
                image_shape=self.model.image_shape,
                n_levels=self.n_levels,
                batch=batch,
                model=fingerprint(self.model, self.n_levels, self.told),
                is_robust=is_robust,
                grids=tuple(
                    GridRecord(exponent=g.exponent, reach=g.reach, is_scaled=g.is_scaled) for g in calibration.grids
                ),
                conditions=conditions(self.model, threads),
                index_bytes=len(contents.index),
            )
            chain = self._chain(model, header)
            return write_archive(path, header, contents.index, chain, source, calibration.bits_back)

    @contextmanager
    def opened(self, path: Path, anyway: bool = False) -> Iterator[tuple[Archive, Iterator[np.ndarray]]]:
        """An archive that this model made, and its images, group by group, integers (n, C, H, W).

        Args:
            anyway: try also where versions or the machine differ: what comes out is checked.
        Raises:
            DataError: naming the file and what is wrong with it.
        """
        with open_archive(path) as archive:
            header = archive.header
            self._check(path, header, anyway)
            threads = header.conditions.threads
            if threads > 4 * (os.cpu_count() or 1):
                if not (header.is_robust or anyway):
                    raise DataError(f"{path}: made with {threads} threads, more than this machine should start.")
                threads = torch.get_num_threads()
            with reproducible(self.model, threads):
                model, _ = self._computing(header.is_robust)
                yield archive, archive.images(self._chain(model, header))

    def _check(self, path: Path, header: Header, anyway: bool) -> None:
        if header.model != fingerprint(self.model, self.n_levels, self.told):
            raise DataError(f"{path}: made with another model, of fingerprint {header.model[:12]}. Name that one.")
        shapes = self.model.latent_shapes()
        if (header.image_shape, header.n_levels) != (self.model.image_shape, self.n_levels):
            raise DataError(
                f"{path}: images of {header.image_shape} with {header.n_levels} levels are not this model's."
            )
        if len(header.grids) != len(shapes):
            raise DataError(f"{path}: {len(header.grids)} grids, but the model has {len(shapes)} layers.")
        threads = torch.get_num_threads()
        with reproducible(self.model, threads):
            now = conditions(self.model, threads)
        if (wrong := header.conditions.differences(now, header.is_robust)) and not anyway:
            raise DataError(
                f"{path}: made under other conditions: {'; '.join(wrong)}. Decode where they are the same, or try it "
                "with --anyway: what comes out is compared with digests, and never put in place if it is wrong."
            )

    def _computing(self, is_robust: bool) -> tuple[Model, Rounding]:
        return (widened(self.model) if is_robust else self.model), Rounding(is_robust)

    def _codec(self, model: Model, grids: tuple[Grid, ...], rounding: Rounding) -> Codec:
        return Codec(model, self.n_levels, grids, device_of(model), dtype_of(model), rounding)

    def _chain(self, model: Model, header: Header) -> Chain:
        codec = self._codec(model, tuple(record.grid for record in header.grids), Rounding(header.is_robust))
        return Chain(codec, header.image_shape, header.batch)


def _some(source: LevelSource) -> torch.Tensor:
    """A few images, integers (n, C, H, W); what is drawn after them is always the same."""
    seed_everything("compression", 0)
    chosen = [source.levels(int(i), 1) for i in spread(len(source), min(len(source), CALIBRATED_ON))]
    return torch.from_numpy(np.concatenate(chosen).astype(np.int64))
