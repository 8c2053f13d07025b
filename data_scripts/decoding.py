"""A pool of processes that decode pictures into memory that all of them share."""

import errno
import mmap
import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_scripts.archives import Archive
from data_scripts.render import Outcome, Pages, Render, end_with_parent, render_into
from lvae_torch.data.sharing import make_shared_folder
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

    def in_order(self, archive: Archive, names: Sequence[str]) -> Iterator[tuple[list[Outcome], np.ndarray]]:
        """What became of pictures, and the images of the good ones, a page at a time.

        The images are there until the next page is asked for.
        """
        size, free = self.pages.shape[1], deque(range(self.pages.shape[0]))
        under_way: deque[tuple[int, Future[list[Outcome]]]] = deque()
        starts = deque(range(0, len(names), size))
        memory = self.pages.open()
        try:
            while starts or under_way:
                while starts and free:
                    first, page = starts.popleft(), free.popleft()
                    files = [(name, archive.span(name)) for name in names[first : first + size]]
                    under_way.append((page, self.pool.submit(render_into, self.render, self.pages, page, files)))
                page, future = under_way.popleft()
                outcomes = future.result()
                yield outcomes, memory[page, : sum(not outcome.problem for outcome in outcomes)]
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
    zeros, written = bytes(2**20), 0  # macOS
    while written < n_bytes:
        written += os.write(file, zeros[: n_bytes - written])


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
    with _shared_file(folder, n_pages * per_page * image_bytes) as file:
        # New interpreters rather than copies of this one: it has threads, and libraries that do not outlive a fork.
        pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent)
        try:
            yield Decoders(pool, render, Pages(file, (n_pages, per_page, *image)))
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _shared_file(folder: Path, size: int) -> Iterator[str]:
    """The path of a file of ``size`` bytes that processes can map and write together, in ``folder`` or else in memory.

    Raises:
        DataError: if there is no room, or nowhere such a file can be.
    """
    make_shared_folder(folder)
    for left in folder.glob("pages_*"):  # by a process that was killed
        with suppress(PermissionError):  # of somebody else
            left.unlink()
    problems = []
    # Some file systems (of other hosts, of virtual machines) know no maps that several processes write.
    for place in (folder, Path("/dev/shm"), Path(tempfile.gettempdir())):
        try:
            file = _mappable(place, size)
            break
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DataError(f"{place}: cannot be written ({error.strerror}). Make room, and try again.") from error
            problems.append(f"{place}: {error.strerror}")
    else:
        raise DataError(
            f"no folder for memory that processes share ({'; '.join(problems)}). Set TMPDIR to a local one."
        )
    with file:
        yield file.name


def _mappable(place: Path, size: int) -> "tempfile._TemporaryFileWrapper[bytes]":
    file = tempfile.NamedTemporaryFile(dir=place, prefix="pages_")  # noqa: SIM115
    try:
        _allocate(file.fileno(), size)
        with mmap.mmap(file.fileno(), size):
            return file
    except BaseException:
        file.close()
        raise
