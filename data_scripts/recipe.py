"""What a dataset recipe is: one file here, one line in the table of ``data_scripts.recipes``."""

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_scripts.download import Found, fetch, fetch_url, is_address
from data_scripts.unpacking import NoRoomError
from data_scripts.upstream import Source
from lvae_torch.data.dump import Layout
from lvae_torch.data.order import spread
from lvae_torch.data.shapes import ImageShape
from lvae_torch.data.sharing import locked
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import CfgError, DataError, say
from lvae_torch.files import place_of


class DamagedPicturesError(DataError):
    """Some pictures are damaged; the file that holds them may be good otherwise."""


UNPACKED = "unpacked"  # folder below that of the downloads: what archives hold, as long as it is needed


@dataclass(frozen=True)
class Request:
    """What a recipe is asked to make."""

    dumps: Path
    mirror: str | None = None
    """URL or folder to take the source files from, instead of upstream."""
    source: str | None = None
    """File or folder that a person has put files into."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """``name``, ``limit``, ``replace`` and the recipe's own options; a recipe sees all of them, defaults filled in."""
    keep_raw: bool = False
    """Whether downloads stay when the dump is whole."""
    raw: Path = Path()
    """Folder for downloads."""
    files: dict[str, Found] = field(default_factory=dict)
    """What was fetched so far."""
    others: list[str] = field(default_factory=list)
    """Why what is there is not the set asked for."""

    def fetch(self, source: Source, *upstream: str, exact: bool = False) -> Path:
        """A local path to an upstream file, verified; it is named in the dump's description.

        Args:
            upstream: base URLs, tried in order; none where a person must fetch the file.
            exact: refuse other editions of the file from a mirror too.
        Raises:
            DataError: naming each place tried and what was wrong there, or what to fetch by hand.
        """
        given = [place for place in (self.source, self.mirror) if place]
        if not given and not upstream:
            raise DataError(by_hand([source]))
        found = fetch(source, given or upstream, self.raw, other_editions=bool(given) and not exact)
        if not found.is_upstream:
            say(
                f"{found.path}: not upstream's file as far as that is known ({source}), but sha256 {found.sha256}. "
                "The dump says so; numbers on it may not be comparable with published ones."
            )
        self.files[source.name] = found
        return found.path

    def fetch_address(self, source: str) -> Path:
        """A local path to what a person named: a folder or a file, or an http(s) address, which is downloaded.

        Raises:
            CfgError: for an address of another kind, or a home that there is not.
            DataError: if it cannot be had.
        """
        if not is_address(source):
            return place_of(source, "--source")
        found = fetch_url(source, self.raw)
        size = found.path.stat().st_size
        say(f"{found.path.name}: {size:,} bytes, sha256 {found.sha256}")
        self.files[found.path.name] = found
        return found.path

    def fetch_by_hand(self, sources: Sequence[Source]) -> list[Path]:
        """Several files that no program can fetch; says at once which are missing.

        Raises:
            DataError: naming each missing file, its size, checksum and origin, and where to put it.
        """
        paths, missing, problems = list[Path](), list[Source](), list[str]()
        for source in sources:
            try:
                paths.append(self.fetch(source))
            except DataError as error:
                missing.append(source)
                problems += [str(error)] if self.source or self.mirror else []
        if missing:
            raise DataError("\n".join([*problems, by_hand(missing)]))
        return paths

    def refuse(self, problem: str) -> None:
        """What is there is another set than the one asked for; it may be taken under another name only.

        Raises:
            DataError: with ``problem``, unless ``--accept-other`` was given.
        """
        if not self.options["accept_other"]:
            raise DataError(f"{problem} If you want it all the same, under another name: --accept-other.")
        say(f"{problem} Taken all the same: --accept-other.")
        self.others.append(problem)

    def throw_away(self, problem: str) -> None:
        """Remove downloads that nothing vouches for and that ``problem`` names: the next try asks for them again."""
        for found in self.files.values():
            if found.path.is_relative_to(self.raw) and not found.is_upstream and str(found.path) in problem:
                found.path.unlink(missing_ok=True)
                say(f"{found.path}: thrown away; the next try asks for it again.")

    def chosen(self, n_images: int) -> np.ndarray:
        """Indices of the images to keep of a split: all, or ``limit`` of them evenly spread, for some are sorted."""
        return spread(n_images, self.options["limit"])

    def writer(
        self,
        variant: str,
        layout: Layout,
        provenance: Mapping[str, Any],
        ledger: str = "",
        still_true: Callable[[Path], bool] | None = None,
    ) -> DumpWriter:
        """A writer of the dump asked for: ``variant``, with the limit in its name, unless a name was given.

        Args:
            ledger, still_true: as ``DumpWriter`` has them; with a ledger, a dump that was begun is continued.
        """
        name, said = self.named(variant, provenance)
        return DumpWriter(
            *(self.dumps, name, layout, said),
            continued=bool(ledger),
            replace=self.options["replace"],
            ledger=ledger,
            still_true=still_true,
        )

    def named(self, variant: str, provenance: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The name of the dump asked for, and all that is to be said of where it comes from."""
        limit = self.options["limit"]
        variant += "_other" if self.others else ""
        name = self.options["name"] or (f"{variant}_limit{limit}" if limit else variant)
        said: dict[str, Any] = dict(provenance)
        if self.others:
            said["another_set"] = self.others
        if limit:
            said["limit"] = f"{limit} images of each split, evenly spread"
        if self.files:
            said["files"] = {file: found.sha256 for file, found in self.files.items()}
        if others := [file for file, found in self.files.items() if not found.is_upstream]:
            said["other_files"] = others
        return name, said


def by_hand(sources: Sequence[Source]) -> str:
    """What a person must do for files that no program can fetch."""
    files = "\n".join(f"  {source}\n    {source.origin}" for source in sources)
    return f"These files must be fetched by hand:\n{files}\nPut them into one folder, and name it: --source FOLDER."


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
    write: Callable[[Request], str]
    """Makes the dump and returns its name."""
    add_own_options: Callable[[argparse.ArgumentParser], object] = lambda parser: None
    access: str = "automatic"
    """Or "manual", where a person must fetch files first."""
    looks: Mapping[str, tuple[ImageShape, int]] = field(default_factory=dict)
    """Image shape (C, H, W) and pixel levels (0 for values without) by the name of each dump that this makes."""
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Other dumps that this makes: their names, and the options that make them."""

    @property
    def summary(self) -> str:
        return f"{self.images} images {self.pixels}; download {self.download}, dump {self.dump}"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Declare what ``Request.options`` may hold."""
        parser.add_argument("--name", default="", help="name of the dump (default: the dataset's, with its variant)")
        parser.add_argument(
            "--replace",
            action="store_true",
            help="remove a dump of that name made from something else, which is else kept as NAME.earlier1",
        )
        parser.add_argument(
            "--limit",
            type=int,
            default=0,
            metavar="N",
            help="N images of each split, evenly spread; in the dump's name",
        )
        parser.add_argument(
            "--accept-other",
            action="store_true",
            help="take files that are another set or an incomplete one, under the name with _other",
        )
        self.add_own_options(parser)

    def make(self, request: Request) -> str:
        """Make the dump and return its name. An older one of that name makes room once the new one is whole: it goes if
        it was made from the same, or with ``replace``, and else is kept under another name.

        Raises:
            CfgError: for an option that there is not.
            DataError: naming the file that is missing, damaged or not what it should be, and what to do.
        """
        options = self._filled(request.options)
        raw = request.dumps / ".raw" / self.name
        request = replace(request, options=options, raw=raw)
        with locked(raw.with_name(f"{self.name}.lock"), self.name, wait=False):
            try:
                name = self.write(request)
            except (DamagedPicturesError, NoRoomError):  # what was downloaded is good
                raise
            except DataError as error:
                request.throw_away(str(error))
                raise
            finally:
                shutil.rmtree(raw / UNPACKED, ignore_errors=True)
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
