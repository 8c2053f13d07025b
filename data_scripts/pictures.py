"""Many picture files to a dump: rendered by a pool of processes, in order, memory bounded, continued after a kill."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_scripts.archives import Archive
from data_scripts.decoding import decoders
from data_scripts.progress import progress
from data_scripts.recipe import Request
from data_scripts.render import Render
from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import DataError


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
            DataError: naming a picture that is damaged, beyond those that may be left out.
        """
        request = self.request
        chosen = {
            split: (archive, [names[i] for i in request.chosen(len(names))])
            for split, (archive, names) in archives.items()
        }
        provenance = {**self.provenance, **self.render.description}
        total = sum(len(names) for _, names in chosen.values())
        with (
            request.writer(self.variant, self.layout, provenance, continued=True) as writer,
            decoders(self.render, request.options["jobs"], request.raw) as pool,
        ):
            for split, (archive, names) in chosen.items():
                first = _position(names, writer.last_name(split))
                with progress(f"{writer.dataset} {split}", len(names), "images", first) as advance:
                    for good, images, problems in pool.in_order(archive, names[first:]):
                        writer.add(split, images, names=good)
                        first += len(good) + len(problems)
                        self._check_problems(archive, problems, n_left_out=first - writer.count(split))
                        advance(len(good) + len(problems))
            self._tell_skipped(writer, total)
        return writer.dataset

    def _check_problems(self, archive: Archive, problems: Mapping[str, str], n_left_out: int) -> None:
        """``n_left_out`` counts those that a killed process left out, too."""
        if problems and n_left_out > self.request.options["skip_damaged"]:
            told = "\n  ".join(f"{name}: {problem}" for name, problem in [*problems.items()][:10])
            raise DataError(
                f"{archive.path}: damaged pictures:\n  {told}\nGet the file again, or leave out up to N such pictures "
                "with --skip-damaged N."
            )

    def _tell_skipped(self, writer: DumpWriter, total: int) -> None:
        written = sum(writer.count(split) for split in writer.splits)
        if written < total:
            writer.provenance["left_out"] = f"{total - written} damaged pictures"


def _position(names: Sequence[str], last: str | None) -> int:
    return names.index(last) + 1 if last is not None else 0
