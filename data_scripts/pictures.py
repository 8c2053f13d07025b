"""Many picture files to a dump: rendered by a pool of processes, in order, memory bounded, continued after a kill."""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_scripts.archives import Archive
from data_scripts.decoding import Decoders, decoders
from data_scripts.progress import progress
from data_scripts.recipe import Request
from data_scripts.render import Render
from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import CfgError, DataError


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """``--jobs`` and ``--skip-damaged``."""
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="processes that decode (default: all cores)")
    parser.add_argument(
        "--skip-damaged", type=int, default=0, metavar="N", help="leave out up to N damaged pictures (default: none)"
    )


@dataclass(frozen=True)
class PictureDump:
    """A dump made of picture files."""

    request: Request
    variant: str
    layout: Layout
    provenance: Mapping[str, object]
    render: Render

    def write(self, archives: Mapping[str, tuple[Archive, Sequence[str]]]) -> str:
        """Write the dump, splits given as archive and names in order; returns its name.

        Raises:
            CfgError: for a number of pictures to leave out that cannot be.
            DataError: naming a picture that is damaged, beyond those that may be left out.
        """
        request = self.request
        if (allowed := request.options["skip_damaged"]) < 0:
            raise CfgError(f"--skip-damaged is {allowed}; use a number of pictures, or 0 for none.")
        chosen = {
            split: (archive, [names[i] for i in request.chosen(len(names))])
            for split, (archive, names) in archives.items()
        }
        provenance = {**self.provenance, "pictures": _fingerprint(chosen), **self.render.description}
        with (
            request.writer(self.variant, self.layout, provenance, continued=True) as writer,
            decoders(self.render, request.options["jobs"], request.raw) as pool,
        ):
            n_left_out = 0
            for split, (archive, names) in chosen.items():
                n_left_out += self._write_split(writer, pool, split, archive, names, n_left_out)
            if n_left_out:
                writer.provenance["left_out"] = f"{n_left_out} damaged pictures"
        return writer.dataset

    def _write_split(
        self, writer: DumpWriter, pool: Decoders, split: str, archive: Archive, names: Sequence[str], n_left_out: int
    ) -> int:
        """Write what is not on disk yet; returns how many of all were left out, ``n_left_out`` before."""
        first = _position(names, writer.last_name(split))
        self._check(archive, n_left_out + first - writer.count(split), {})
        with progress(f"{writer.dataset} {split}", len(names), "images", first) as advance:
            for good, images, problems in pool.in_order(archive, names[first:]):
                writer.add(split, images, names=[*map(listed, good)])
                first += len(good) + len(problems)
                self._check(archive, n_left_out + first - writer.count(split), problems)
                advance(len(good) + len(problems))
        return first - writer.count(split)

    def _check(self, archive: Archive, n_left_out: int, problems: Mapping[str, str]) -> None:
        """``n_left_out`` counts those that a killed process left out, too."""
        if n_left_out > self.request.options["skip_damaged"]:
            told = [f"{name}: {problem}" for name, problem in [*problems.items()][:10]]
            lines = "\n  ".join(told or [f"{n_left_out:,} that were left out before"])
            raise DataError(
                f"{archive.path}: damaged pictures:\n  {lines}\nGet the file again, or leave out up to N "
                "such pictures with --skip-damaged N."
            )


def listed(name: str) -> str:
    """A file's name as one line of text, whatever is in it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _position(names: Sequence[str], last: str | None) -> int:
    return [*map(listed, names)].index(last) + 1 if last is not None else 0


def _fingerprint(chosen: Mapping[str, tuple[Archive, Sequence[str]]]) -> str:
    """Tells the pictures of a dump from others, so that those of a folder that changed are not mixed."""
    digest = hashlib.sha256()
    for split, (archive, names) in chosen.items():
        for name in names:
            digest.update(f"{split} {listed(name)} {archive.span(name).size}\n".encode())
    return f"sha256 of their names and sizes: {digest.hexdigest()}"
