"""Many picture files to a dump: rendered by a pool of processes, in order, memory bounded, continued after a kill."""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from data_scripts.account import Account
from data_scripts.archives import Archive
from data_scripts.decoding import Decoders, decoders
from data_scripts.labels import Labels
from data_scripts.ledger import FILE, Ledger, Record
from data_scripts.progress import progress
from data_scripts.recipe import DamagedPicturesError, Request
from data_scripts.render import Outcome, Render
from data_scripts.rows import Readable
from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import CfgError


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """``--jobs`` and ``--skip-damaged``."""
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="processes that decode (default: all cores)")
    parser.add_argument(
        "--skip-damaged", type=int, default=0, metavar="N", help="leave out up to N damaged pictures (default: none)"
    )


Chosen = Mapping[str, tuple[Archive, Sequence[str]]]
"""Archive and names in order, of each split."""


@dataclass(frozen=True)
class PictureDump:
    """A dump made of picture files."""

    request: Request
    variant: str
    layout: Layout
    provenance: Mapping[str, object]
    render: Render
    account: Account | None = None
    """Filled with what became of each picture, and kept in the dump."""
    labels: Labels = field(default_factory=Labels)

    def write(self, archives: Chosen) -> str:
        """Write the dump, splits given as archive and names in order; returns its name.

        Raises:
            CfgError: for a number of pictures to leave out that cannot be.
            DamagedPicturesError: naming pictures that are damaged, beyond those that may be left out.
        """
        request = self.request
        if (allowed := request.options["skip_damaged"]) < 0:
            raise CfgError(f"--skip-damaged is {allowed}; use a number of pictures, or 0 for none.")
        chosen = {
            split: (archive, [names[i] for i in request.chosen(len(names))])
            for split, (archive, names) in archives.items()
        }
        self._leave_out_others(archives, chosen)
        spans = {s: {listed(name): archive.span(name) for name in names} for s, (archive, names) in chosen.items()}
        provenance = {**self.provenance, "pictures": _fingerprint(spans), **self.render.description}
        if told := self._labels_of(spans):
            provenance["picture_labels"] = told

        def still_true(folder: Path) -> bool:
            return Ledger(folder).still_true(spans, self.render)

        with (
            request.writer(self.variant, self.layout, provenance, ledger=FILE, still_true=still_true) as writer,
            decoders(self.render, request.options["jobs"], request.raw) as pool,
        ):
            ledger = Ledger(writer.aside)
            for split, (archive, names) in chosen.items():
                self._write_split(writer, ledger, pool, split, archive, names, spans)
            self._tell(writer, ledger, spans)
        return writer.dataset

    def _labels_of(self, spans: Mapping[str, Mapping[str, Readable]]) -> str:
        """Tells the labels of a dump's pictures from others, so that a conversion that goes on mixes no two sets."""
        if not self.labels.of:
            return ""
        found = [[name, self.labels.of.get(name)] for names in spans.values() for name in names]
        said = json.dumps([list(self.labels.names), found], default=int)  # NumPy's integers, too
        return f"sha256 of them: {hashlib.sha256(said.encode(errors='surrogateescape')).hexdigest()}"

    def _leave_out_others(self, archives: Chosen, chosen: Chosen) -> None:
        """Account for the pictures that ``--limit`` leaves out."""
        if self.account is None:
            return
        for split, (_, names) in archives.items():
            kept = set(chosen[split][1])
            for name in names:
                if name not in kept:
                    self.account.drop(listed(name), "beyond --limit")

    def _write_split(
        self,
        writer: DumpWriter,
        ledger: Ledger,
        pool: Decoders,
        split: str,
        archive: Archive,
        names: Sequence[str],
        spans: Mapping[str, Mapping[str, Readable]],
    ) -> None:
        """Write what is not on disk yet."""
        first = _position(spans[split], writer.last_name(split))
        self._check(archive, _problems(ledger, spans))
        with progress(f"{writer.dataset} {split}", len(names), "images", first) as advance:
            for outcomes, images in pool.in_order(archive, names[first:]):
                outcomes = [outcome._replace(name=listed(outcome.name)) for outcome in outcomes]
                ledger.add(split, outcomes, spans[split])
                good = [outcome.name for outcome in outcomes if not outcome.problem]
                writer.add(split, images, self.labels.of_all(good), good)
                if len(good) < len(outcomes):
                    self._check(archive, _problems(ledger, spans))
                advance(len(outcomes))

    def _check(self, archive: Archive, problems: Mapping[str, Outcome]) -> None:
        """Among ``problems`` are those that a killed process left out."""
        told = [f"{name}: {outcome.problem}" for name, outcome in [*problems.items()][-10:]]
        if undecided := [f"{name}: {outcome.problem}" for name, outcome in problems.items() if outcome.is_undecided]:
            lines = "\n  ".join(undecided[-10:])
            raise CfgError(f"{archive.path}: pictures that may be taken in several ways:\n  {lines}")
        if len(problems) > self.request.options["skip_damaged"]:
            lines = "\n  ".join(told)
            raise DamagedPicturesError(
                f"{archive.path}: damaged pictures:\n  {lines}\nGet the file again, or leave out up to N "
                "such pictures with --skip-damaged N."
            )

    def _tell(self, writer: DumpWriter, ledger: Ledger, spans: Mapping[str, Mapping[str, Readable]]) -> None:
        """Account for all pictures in the dump's description and beside its images."""
        problems = _problems(ledger, spans)
        if problems:
            writer.provenance["left_out"] = f"{len(problems)} damaged pictures"
        if self.account is None:
            return
        for name, outcome in problems.items():
            self.account.drop(name, "damaged")
            self.account.note(f"{name}: {outcome.problem}", "damaged, and how")
        found = {split: list(ledger.of(split, names)) for split, names in spans.items()}
        for name, note in (
            (r.outcome.name, note) for records in found.values() for r in records for note in r.outcome.notes
        ):
            self.account.note(name, note)
        self.account.equal.update(_equal(found))
        writer.provenance["account"] = self.account.described()
        self.account.write(writer.aside)


def _problems(ledger: Ledger, spans: Mapping[str, Mapping[str, Readable]]) -> dict[str, Outcome]:
    """Pictures that are left out so far, by name."""
    records = (record for split, names in spans.items() for record in ledger.of(split, names))
    return {record.outcome.name: record.outcome for record in records if record.outcome.problem}


def _equal(found: Mapping[str, Sequence[Record]]) -> dict[str, list[str]]:
    """Pictures of one split whose image is, to the pixel, that of a picture of an earlier one, by these splits."""
    equal = dict[str, list[str]]()
    for one, other in combinations(found, 2):
        earlier = {record.outcome.digest: record.outcome.name for record in found[one] if record.outcome.digest}
        pairs = [
            f"{earlier[record.outcome.digest]} = {record.outcome.name}"
            for record in found[other]
            if record.outcome.digest in earlier
        ]
        if pairs:
            equal[f"of {other} that are in {one}, too"] = pairs
    return equal


def listed(name: str) -> str:
    """A file's name as one line of text, whatever is in it."""
    if name.isprintable():  # nearly all, in no time
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _position(names: Mapping[str, Readable], last: str | None) -> int:
    return list(names).index(last) + 1 if last is not None else 0


def _fingerprint(spans: Mapping[str, Mapping[str, Readable]]) -> str:
    """Tells the pictures of a dump from others, so that those of a folder that changed are not mixed."""
    digest = hashlib.sha256()
    for split, pictures in spans.items():
        for name, span in pictures.items():
            crc = "" if span.crc is None else f" {span.crc:08x}"
            digest.update(f"{split} {name} {span.size}{crc}\n".encode())
    return f"sha256 of their names and sizes: {digest.hexdigest()}"
