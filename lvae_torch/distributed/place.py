"""Where a process stands among its peers, and on which device it computes, with the reason."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lvae_torch.distributed.cards import cards_shown, has_driver, is_built_for, oldest_built_for, why_unused
from lvae_torch.errors import CfgError

Device = Literal["auto", "cpu", "cuda", "mps"]
REMEDY = "Start it by torchrun, which sets them all, or alone: unset RANK LOCAL_RANK WORLD_SIZE"


@dataclass(frozen=True)
class Standing:
    """This process's numbers, as torchrun gives them in the environment."""

    local_rank: int = 0
    rank: int = 0
    world: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Standing":
        """
        Raises:
            CfgError: if a variable is missing, or is no number that can be.
        """
        numbers = {name: _number(environment, name) for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
        local_rank, rank, world = numbers.values()
        if world is None:
            if told := [f"{name} = {number}" for name, number in numbers.items() if number is not None]:
                raise CfgError(f"The environment has {' and '.join(told)}, but no WORLD_SIZE. {REMEDY}.")
            return cls()
        if world < 1 or not 0 <= (rank or 0) < world or (local_rank or 0) < 0:
            raise CfgError(f"The environment has RANK = {rank} and WORLD_SIZE = {world}, which cannot be. {REMEDY}.")
        if world > 1:
            if rank is None:
                raise CfgError(f"The environment has WORLD_SIZE = {world}, but no RANK. {REMEDY}.")
            if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]:
                raise CfgError(
                    f"The environment has WORLD_SIZE = {world}, but no {' and no '.join(missing)}: where rank 0 can be "
                    f"reached. {REMEDY}."
                )
            if not 0 < (_number(environment, "MASTER_PORT") or 0) < 2**16:
                raise CfgError(f"MASTER_PORT is {environment['MASTER_PORT']}; a port is a number from 1 to 65535.")
        return cls(local_rank or 0, rank or 0, world)


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "").strip()
    try:
        return int(text) if text else None
    except ValueError as error:
        raise CfgError(f"The environment variable {name} is {text!r}; it must be a whole number. {REMEDY}.") from error


def choose_device(wanted: str, local_rank: int = 0) -> torch.device:
    """The device of this process.

    Raises:
        CfgError: if a GPU is asked for and there is none, or no one for this local rank; if the system shows a card
            that PyTorch cannot use, also where the device is "auto": days on a CPU are no answer to an old driver.
    """
    available = torch.cuda.is_available()
    if wanted == "mps":
        if not torch.backends.mps.is_available():
            raise CfgError("[run] device = mps, but PyTorch finds no GPU of Apple's; use auto or cpu.")
        return torch.device("mps")
    if wanted == "cpu" or (wanted == "auto" and not available and not cards_shown()):
        return torch.device("cpu")
    if not available:
        raise CfgError(f"[run] device = {wanted}, but {_no_card()} lvae doctor tells more.")
    if local_rank >= torch.cuda.device_count():
        raise CfgError(
            f"local rank {local_rank} has no GPU: this node has {torch.cuda.device_count()}. "
            "Lower torchrun's --nproc_per_node."
        )
    device = torch.device("cuda", local_rank)
    capability, architectures = torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()
    if not is_built_for(capability, architectures):
        raise CfgError(
            f"{device} ({torch.cuda.get_device_name(device)}) has compute capability {'.'.join(map(str, capability))}; "
            f"PyTorch {torch.__version__} is built for {oldest_built_for(architectures)} and newer. Install PyTorch "
            "for an older CUDA (docs/image.md), or set [run] device = cpu."
        )
    torch.cuda.set_device(device)
    return device


def _no_card() -> str:
    if not (shown := cards_shown()):
        return "this machine shows no NVIDIA card that may be used; use auto or cpu."
    cards = "an NVIDIA card" if shown == 1 else f"{shown} NVIDIA cards"
    return f"this machine has {cards}, and {why_unused()}, or set [run] device = cpu."


def device_told(device: torch.device, wanted: str, world: int = 1) -> str:
    """The line that a run begins with: the device, and why it is that."""
    many = f", {world} processes" if world > 1 else ""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return f"device: {device} ({name}){many}; [run] device = {wanted}"
    threads = torch.get_num_threads()
    told = f"device: {device}, {threads} thread{'s' if threads > 1 else ''}{many}; [run] device = {wanted}"
    if wanted != "auto":
        return told
    if has_driver():
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        return (
            f"WARNING: {told}, and PyTorch cannot use the GPU though this machine has an NVIDIA driver: PyTorch "
            f"{torch.__version__} {built}. Install the build that suits the driver (nvidia-smi tells), or make the GPU "
            "visible (CUDA_VISIBLE_DEVICES)."
        )
    apple = "; [run] device = mps takes Apple's GPU" if torch.backends.mps.is_available() else ""
    return f"{told}, and PyTorch finds no NVIDIA GPU{apple}"


def float64_device(device: torch.device) -> torch.device:
    """Where sums in float64 are: on the device, or on the CPU where the device knows no such numbers."""
    return torch.device("cpu") if device.type == "mps" else device


def in_float64(values: Tensor) -> Tensor:
    """The same numbers in float64, on ``float64_device``. It moves them first, because ``mps`` cannot convert them."""
    return values.to(float64_device(values.device)).double()


@contextmanager
def pytorchs_own_products() -> Iterator[None]:
    """Inside, a card multiplies as PyTorch has it by itself, whatever ``[train] tf32`` says: matrices in float32, and
    convolutions in TF32."""
    convolutions, matrices = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, matrices.allow_tf32
    try:
        convolutions.allow_tf32, matrices.allow_tf32 = True, False
        yield
    finally:
        convolutions.allow_tf32, matrices.allow_tf32 = before


def n_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
