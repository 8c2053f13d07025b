"""A pool of processes that decode pictures into memory that all of them share."""

import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_scripts.archives import Archive
from data_scripts.render import Pages, Render, end_with_parent, render_into
from lvae_torch.distributed.place import n_cores
from lvae_torch.errors import CfgError, DataError

PAGE_BYTES = 8 * 2**20  # of images, at most, in one piece of work
PAGE_IMAGES = 128
WINDOW_BYTES = 64 * 2**20  # of images decoded ahead, so that nobody waits while a shard is being written


@dataclass(frozen=True)
class Decoders:
    """Workers, and the pages that they decode into: sending images through pipes would cost as much as reading them."""

    pool: ProcessPoolExecutor
    render: Render
    pages: Pages

    def in_order(
        self, archive: Archive, names: Sequence[str]
    ) -> Iterator[tuple[list[str], np.ndarray, dict[str, str]]]:
        """Names of good pictures, their images, and what is wrong with the others, a page at a time.

        The images are there until the next page is asked for.
        """
        size, free = self.pages.shape[1], deque(range(self.pages.shape[0]))
        under_way: deque[tuple[int, Future[tuple[list[str], dict[str, str]]]]] = deque()
        starts = deque(range(0, len(names), size))
        memory = self.pages.open()
        try:
            while starts or under_way:
                while starts and free:
                    first, page = starts.popleft(), free.popleft()
                    files = [(name, archive.span(name)) for name in names[first : first + size]]
                    under_way.append((page, self.pool.submit(render_into, self.render, self.pages, page, files)))
                page, future = under_way.popleft()
                good, problems = future.result()
                yield good, memory[page, : len(good)], problems
                free.append(page)
        except BrokenProcessPool as error:
            raise DataError(
                f"{archive.path}: a decoding process was killed, perhaps for want of memory. Repeat the command, which "
                "goes on where this ended; --jobs 1 needs least."
            ) from error


def _allocate(file: int, n_bytes: int) -> None:
    """Take the room now: a disk that is found full later would end the process by a signal.

    Raises:
        OSError: if there is not so much.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, n_bytes)
        return
    zeros = bytes(2**20)  # macOS
    for first in range(0, n_bytes, len(zeros)):
        os.write(file, zeros[: n_bytes - first])


@contextmanager
def decoders(render: Render, jobs: int, folder: Path) -> Iterator[Decoders]:
    """``jobs`` processes, or one for each core; what they share lies in ``folder`` meanwhile.

    Raises:
        CfgError: for a number of processes that cannot be.
        DataError: if there is no room in ``folder``.
    """
    if jobs < 0:
        raise CfgError(f"--jobs is {jobs}; use a number of processes, or 0 for one on each core.")
    jobs = jobs or n_cores()
    image = (*render.size, render.channels)
    image_bytes = int(np.prod(image))
    per_page = max(1, min(PAGE_IMAGES, PAGE_BYTES // image_bytes))
    n_pages = max(2 * jobs, WINDOW_BYTES // (per_page * image_bytes))
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("pages_*"):  # by a process that was killed
        left.unlink()
    with tempfile.NamedTemporaryFile(dir=folder, prefix="pages_") as file:
        try:
            _allocate(file.fileno(), n_pages * per_page * image_bytes)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error.strerror}). Make room, and try again.") from error
        # New interpreters rather than copies of this one: it has threads, and libraries that do not outlive a fork.
        pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent)
        try:
            yield Decoders(pool, render, Pages(file.name, (n_pages, per_page, *image)))
        finally:
            pool.shutdown(cancel_futures=True)
