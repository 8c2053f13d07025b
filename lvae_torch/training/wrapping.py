"""Applies the switches of [train] to a model, and checks that they fit the processes."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from lvae_torch.distributed.batch_norm import share_statistics
from lvae_torch.distributed.compiling import prepare_compiling
from lvae_torch.distributed.processes import Processes
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Model
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.half_weights import HalfWeights
from lvae_torch.training.reduction import GradientSlices
from lvae_torch.training.section import TrainSection


def prepare(section: TrainSection, is_deterministic: bool, runs: Path, processes: Processes) -> None:
    """Check the switches against the processes and the machine, and apply those of the whole process.

    Args:
        runs: the folder of runs, beside which compiled programs are kept.
    Raises:
        CfgError: if a switch does not fit.
    """
    check_processes(section, processes)
    if section.compile:
        prepare_compiling(runs)
    choose_kernels(section, is_deterministic, processes.device)


def check_processes(section: TrainSection, processes: Processes) -> None:
    """Check the global batch against the number of processes.

    Raises:
        CfgError: if the batch cannot be divided evenly.
    """
    batch, parts = section.batch_size, processes.world * section.accumulate
    if batch % parts:
        raise CfgError(
            f"[train] batch_size is {batch}, but {processes.world} processes with accumulate = {section.accumulate} "
            f"need a multiple of {parts}; batch_size counts the images of all processes together."
        )


def choose_kernels(section: TrainSection, is_deterministic: bool, device: torch.device) -> None:
    """Let the libraries of a card choose kernels as the switches say, for the whole process. A CPU has no choice."""
    if device.type != "cuda":
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = section.tf32
    torch.backends.cudnn.benchmark = section.cudnn_benchmark
    if is_deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first product
        torch.use_deterministic_algorithms(True)
        # No step reads what nothing wrote.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def place(section: TrainSection, model: Model, device: torch.device) -> None:
    """Move the model to its device, in the section's memory format."""
    model.to(device)
    if section.channels_last:
        model.to(memory_format=torch.channels_last)


def switch(section: TrainSection, model: Model, processes: Processes) -> None:
    """Apply the section's switches to the model."""
    if section.activation_checkpointing:
        model.rematerialize()
    if section.sync_batch_norm and processes.world > 1:
        share_statistics(model)


def step_switches(section: TrainSection, model: Model, flat: FlatParameters, processes: Processes) -> dict[str, Any]:
    """What the section makes of a step: arguments of ``TrainStep``."""
    return {
        "accumulate": section.accumulate,
        "autocast": autocast(section.precision, processes.device),
        "is_graphed": is_graphed(section, processes.device),
        "compiler": "inductor" if section.compile else None,
        "half": (half := half_weights(section, model, flat)),
        "slices": gradient_slices(flat, half, processes),
    }


def is_graphed(section: TrainSection, device: torch.device) -> bool:
    """Whether what is done again and again on ``device`` is replayed as CUDA graphs."""
    return section.cuda_graph and device.type == "cuda"


def half_weights(section: TrainSection, model: Model, flat: FlatParameters) -> HalfWeights | None:
    """What gives the layers of ``model`` bfloat16 weights; None where it trains in full precision.

    Activations that are computed again take the model's own weights: there autocast converts each.
    """
    is_half = section.precision == "bfloat16" and not section.activation_checkpointing
    return HalfWeights(model, flat) if is_half else None


def gradient_slices(flat: FlatParameters, half: HalfWeights | None, processes: Processes) -> GradientSlices | None:
    """What exchanges gradients over ranks, brings those of half weights home and, on a card, collects all of them."""
    is_cuda, copies = processes.device.type == "cuda", {} if half is None else half.copies
    if not (copies or is_cuda or processes.world > 1):
        return None
    return GradientSlices(flat, processes.world, collecting=is_cuda, copies=copies)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context for ``precision``; the meta device knows float32 alone."""
    is_half = precision == "bfloat16" and torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, torch.bfloat16) if is_half else nullcontext()
