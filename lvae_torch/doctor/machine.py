"""The host: processor, threads, memory that processes share, compiler and caches."""

import os
import platform
import resource
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lvae_torch.cli import WAITING
from lvae_torch.distributed.compiling import c_compiler, cache_folders
from lvae_torch.distributed.cpu import half_of_cpu
from lvae_torch.distributed.memory import GIB, memory_of
from lvae_torch.distributed.place import n_cores
from lvae_torch.doctor.finding import Finding
from lvae_torch.runs.version import VERSION

SHARED_MEMORY = Path("/dev/shm")
INFINIBAND = Path("/sys/class/infiniband")
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
ENOUGH_SHARED, ENOUGH_LOCKED = GIB, 64 * 2**20
PACKAGES = ("torch", "torchvision", "numpy", "safetensors", "tensorboard", "Pillow")


def check_machine(runs: Path) -> Iterator[Finding]:
    """All that does not depend on a card; ``runs`` is the folder of runs, beside which compiled programs are kept."""
    yield Finding("versions", ", ".join([f"lvae_torch {VERSION}", f"Python {platform.python_version()}", *_packages()]))
    yield check_processor()
    yield from check_threads()
    yield Finding("memory", f"{memory_of(torch.device('cpu')) / GIB:.1f} GiB that this process may use")
    yield check_shared_memory()
    yield check_locked_memory()
    yield check_compiler()
    yield from check_caches(runs)


def _packages() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} none"


def check_processor() -> Finding:
    """What the processor has for matrix products."""
    told = f"{platform.machine()}, {n_cores()} cores for this process, {torch.backends.cpu.get_cpu_capability()}"
    return Finding("processor", f"{told}, for bfloat16: {half_of_cpu()}")


def check_threads() -> Iterator[Finding]:
    """Whether PyTorch computes with as many threads as there are cores, and how they wait."""
    threads, cores, granted = torch.get_num_threads(), n_cores(), granted_cores()
    told = f"{threads} of PyTorch's on {cores} cores"
    if granted is not None and granted < cores:
        told += f", of which a limit grants the time of {granted:.3g}"
        cores = max(1, int(granted))
    if threads > cores:
        yield Finding("threads", told, "warning", f"Set OMP_NUM_THREADS={cores}: more threads only wait.")
    else:
        yield Finding("threads", told)
    set_ = [f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", *WAITING) if name in os.environ]
    yield Finding("OpenMP", ", ".join(set_) or "nothing set")


def granted_cores() -> float | None:
    """The processor time that a container's limit grants, in cores; None without a limit."""
    try:
        quota, _, period = CPU_LIMIT.read_text(encoding="utf-8").strip().partition(" ")
        return int(quota) / int(period or 100_000)
    except (OSError, ValueError):  # no such file, or "max"
        return None


def check_shared_memory() -> Finding:
    """NCCL and data workers exchange through it; a container has 64 MiB unless told otherwise."""
    remedy = "In a container: docker run --shm-size=2g (docker_run.sh does so)."
    try:
        size = shutil.disk_usage(SHARED_MEMORY).total
    except OSError:
        return Finding("shared memory", f"no {SHARED_MEMORY}", "fault", remedy)
    told = f"{SHARED_MEMORY}: {size / GIB:.2f} GiB"
    if size < ENOUGH_SHARED:
        return Finding("shared memory", told, "warning", remedy)
    return Finding("shared memory", told)


def check_locked_memory() -> Finding:
    """InfiniBand pins what it sends."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    told = "no limit" if limit == resource.RLIM_INFINITY else f"{limit / 2**20:.0f} MiB"
    if limit != resource.RLIM_INFINITY and limit < ENOUGH_LOCKED and INFINIBAND.is_dir() and any(INFINIBAND.iterdir()):
        remedy = (
            "InfiniBand needs more: ulimit -l unlimited, or docker run --ulimit memlock=-1 (docker_run.sh does so)."
        )
        return Finding("locked memory", told, "warning", remedy)
    return Finding("locked memory", told)


def check_compiler() -> Finding:
    """``[train] compile`` builds programs of its own."""
    if found := c_compiler():
        return Finding("C compiler", found)
    remedy = "[train] compile = True needs one: install gcc, or set CC to one."
    return Finding("C compiler", "none", "warning", remedy)


def check_caches(runs: Path) -> Iterator[Finding]:
    """Whether what ``[train] compile`` builds can be kept, and where."""
    for name, folder in cache_folders(runs).items():
        there = next(place for place in (folder, *folder.parents) if place.exists())
        if os.access(there, os.W_OK):
            yield Finding("compiled", f"{name} {folder}")
        else:
            yield Finding(
                "compiled", f"{name} {folder} cannot be written", "warning", f"Set {name} to a folder of yours."
            )
