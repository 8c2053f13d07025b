"""Many picture files to a dump: rendered by a pool of processes, in order, memory bounded, continued after a kill."""

import argparse
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from data_scripts.archives import Archive
from data_scripts.progress import progress
from data_scripts.recipe import Request
from data_scripts.render import Render, render_all
from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import CfgError, DataError

CHUNK_BYTES = 8 * 2**20  # of rendered images in one piece of work
CHUNK_IMAGES = 128
AHEAD = 2  # pieces of work waiting per process

Rendered = list[tuple[str, "np.ndarray | str"]]


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
            _pool(request.options["jobs"]) as (pool, jobs),
        ):
            for split, (archive, names) in chosen.items():
                first = _position(names, writer.last_name(split))
                with progress(f"{writer.dataset} {split}", len(names), "images", first) as advance:
                    for part in self._in_order(pool, jobs, archive, names[first:]):
                        self._add(writer, split, archive, part, names)
                        advance(len(part))
            self._tell_skipped(writer, total)
        return writer.dataset

    def _in_order(
        self, pool: ProcessPoolExecutor, jobs: int, archive: Archive, names: Sequence[str]
    ) -> Iterator[Rendered]:
        """This process reads the files, the others decode them; only so many pieces are under way at a time."""
        height, width = self.render.size
        size = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // (height * width * self.render.channels)))
        under_way: deque[Future[Rendered]] = deque()
        try:
            for first in range(0, len(names), size):
                files = [(name, archive.read(name)) for name in names[first : first + size]]
                under_way.append(pool.submit(render_all, self.render, files))
                if len(under_way) > AHEAD * jobs:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                f"{archive.path}: a decoding process was killed, perhaps for want of memory. Repeat the command, which "
                "goes on where this ended; --jobs 1 needs least."
            ) from error

    def _add(self, writer: DumpWriter, split: str, archive: Archive, part: Rendered, names: Sequence[str]) -> None:
        good = [(name, image) for name, image in part if not isinstance(image, str)]
        if good:
            writer.add(split, np.stack([image for _, image in good]), names=[name for name, _ in good])
        if len(good) == len(part):
            return
        # Counted from what is written, so that a continued dump counts those that were left out before too.
        consumed = names.index(part[-1][0]) + 1
        allowed = self.request.options["skip_damaged"]
        bad = [f"{name}: {problem}" for name, problem in part if isinstance(problem, str)]
        if consumed - writer.count(split) > allowed:
            told = "\n  ".join(bad[:10])
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


@contextmanager
def _pool(jobs: int) -> Iterator[tuple[ProcessPoolExecutor, int]]:
    if jobs < 0:
        raise CfgError(f"--jobs is {jobs}; use a number of processes, or 0 for one on each core.")
    jobs = jobs or len(os.sched_getaffinity(0))
    # New interpreters rather than copies of this one: it has threads, and libraries that do not outlive a fork.
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool, jobs
    finally:
        pool.shutdown(cancel_futures=True)
