"""What a dataset recipe is: one file here, one line in the table of ``data_scripts.recipes``."""

import argparse
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lvae_torch.data.order import spread
from lvae_torch.data.writing import DumpWriter, only_one
from lvae_torch.errors import CfgError


@dataclass(frozen=True)
class Request:
    """What a recipe is asked to make."""

    dumps: Path
    mirror: str | None = None
    """URL or folder to take the source files from, instead of upstream."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """``name``, ``limit`` and the recipe's own options; a recipe sees all of them, with defaults filled in."""
    keep_raw: bool = False
    """Whether downloads stay when the dump is whole."""

    def bases(self, *upstream: str) -> tuple[str, ...]:
        """Where to look for source files, in order."""
        return (self.mirror,) if self.mirror else upstream

    def chosen(self, n_images: int) -> np.ndarray:
        """Indices of the images to keep of a split: all, or ``limit`` of them evenly spread, for some are sorted."""
        return spread(n_images, self.options["limit"])

    def writer(
        self, variant: str, image_shape: tuple[int, int, int], n_levels: int, provenance: Mapping[str, Any]
    ) -> DumpWriter:
        """A writer of the dump asked for: ``variant``, with the limit in its name, unless a name was given."""
        limit = self.options["limit"]
        name = self.options["name"] or (f"{variant}_limit{limit}" if limit else variant)
        extra = {"limit": f"{limit} images of each split, evenly spread"} if limit else {}
        return DumpWriter(self.dumps, name, image_shape, n_levels, {**provenance, **extra})


@dataclass(frozen=True)
class Recipe:
    """How to make one dataset. The texts are for ``--list``."""

    name: str
    images: str
    """How many."""
    pixels: str
    """Resolution and kind."""
    download: str
    """Size, or "none" for what is made here."""
    dump: str
    """Size."""
    licence: str
    write: Callable[[Request, Path], str]
    """Makes the dump and returns its name, given a folder for downloads."""
    add_own_options: Callable[[argparse.ArgumentParser], object] = lambda parser: None
    access: str = "automatic"
    """Or "manual", where a person must fetch files first."""

    @property
    def summary(self) -> str:
        return f"{self.images} images {self.pixels}; download {self.download}, dump {self.dump}"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Declare what ``Request.options`` may hold."""
        parser.add_argument("--name", default="", help="name of the dump (default: the dataset's, with its variant)")
        parser.add_argument(
            "--limit",
            type=int,
            default=0,
            metavar="N",
            help="N images of each split, evenly spread; in the dump's name",
        )
        self.add_own_options(parser)

    def make(self, request: Request) -> str:
        """Make the dump and return its name. An older one of that name is replaced once the new one is whole.

        Raises:
            CfgError: for an option that there is not.
            DataError: naming the file that is missing, damaged or not what it should be, and what to do.
        """
        options = self._filled(request.options)
        raw = request.dumps / ".raw" / self.name
        with only_one(raw.with_name(f"{self.name}.lock"), self.name):
            name = self.write(replace(request, options=options), raw)
            if not request.keep_raw:
                shutil.rmtree(raw, ignore_errors=True)
        return name

    def _filled(self, given: Mapping[str, Any]) -> dict[str, Any]:
        parser = argparse.ArgumentParser(add_help=False)
        self.add_options(parser)
        options = vars(parser.parse_args([]))
        if unknown := sorted(set(given) - set(options)):
            raise CfgError(f"{self.name}: no option {', '.join(unknown)}; there are {', '.join(options)}.")
        options |= given
        if options["limit"] < 0:
            raise CfgError(f"--limit is {options['limit']}; use a number of images, or 0 for all.")
        return options
