"""Memory: how much there is, how PyTorch says that it is not enough, and that the process keeps what it has."""

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

SIGNS = ("can't allocate memory", "std::bad_alloc", "not enough memory", "could not create a memory object")
"""What PyTorch and oneDNN say on a CPU, where there is no type for it."""
MEMINFO = Path("/proc/meminfo")
GIB = 2**30
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # names that glibc's malloc.h gives to mallopt's options


def keep_freed_memory() -> bool:
    """Let the C library keep memory that is freed, for the next step, instead of giving it back to the system.

    The maps of a step are megabytes each. glibc gives each of them back, and takes it anew in the next operation; then
    the kernel clears it page by page, which is a seventh of a step. The peak does not change. It returns whether the C
    library knows the options: glibc does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    never_mapped_apart, never_trimmed = mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, -1)
    return bool(never_mapped_apart and never_trimmed)


@contextmanager
def settled_objects(device: torch.device) -> Iterator[None]:
    """Inside, the garbage collector passes over what is there now: modules, settings, everything imported.

    Where a step launches single kernels on a card, the host must not stop; a step of a very deep model makes so many
    objects that every dozen steps the collector looked at all there are, for as long as a whole step. On a CPU steps
    take much longer than that.
    """
    if device.type == "cuda":
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def is_out_of_memory(reason: BaseException) -> bool:
    """Whether ``reason`` says that there was not enough memory, on the host or on the device."""
    if isinstance(reason, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(reason, RuntimeError) and any(sign in str(reason) for sign in SIGNS)


def memory_of(device: torch.device) -> int:
    """Bytes that ``device`` has in all, as far as this process may use them; 0 where that is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0
    return min([whole, *map(_limit, ("memory.max", "memory/memory.limit_in_bytes"))])


def memory_told(device: torch.device) -> str:
    """How much ``device`` has in all, for messages; its name alone where that is unknown."""
    whole = memory_of(device)
    return f"{device} has {whole / GIB:.1f} GiB" if whole else str(device)


def free_of(device: torch.device) -> int:
    """Bytes of ``device`` that this process may still take, beside the others of its run; 0 where that is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if not MEMINFO.is_file():
        return memory_of(device)
    available = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable"))
    n_processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return min(int(available.split()[1]) * 2**10, memory_of(device)) // n_processes


def _limit(file: str) -> int:
    """What a container may take."""
    try:
        return int(Path("/sys/fs/cgroup", file).read_text())
    except (OSError, ValueError):  # none, or "max"
        return 2**63
