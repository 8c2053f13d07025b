"""The cards of this machine, their driver, and the build of PyTorch that is to use them."""

from collections.abc import Iterator

import torch

from lvae_torch.distributed import cards
from lvae_torch.distributed.memory import GIB
from lvae_torch.doctor.finding import Finding

OTHERS = 0.1
"""The share of a card's memory that others may use before it is told."""


def check_cards() -> Iterator[Finding]:
    """Driver, build, each card, and how cards talk to one another."""
    shown, driver = cards.cards_shown(), cards.driver_version()
    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
    yield _driver(driver)
    if usable:
        for index in range(usable):
            yield check_card(index)
        yield _nccl()
    if shown > usable:
        told = f"the system shows {shown}, PyTorch uses {usable}"
        yield Finding("cards", told, "fault", f"{cards.why_unused()}.")
    elif not usable:
        yield Finding("cards", "none: everything is computed on the CPU")


def _driver(driver: str | None) -> Finding:
    needed, built = cards.driver_needed(), torch.version.cuda
    told = f"driver {driver or ('of unknown version' if cards.has_driver() else 'none')}; PyTorch is built for CUDA "
    told += f"{built}" + (f", which needs {needed} or newer" if needed else "") if built else "no version"
    if driver and needed and int(driver.partition(".")[0]) < needed:
        remedy = f"Install driver {needed} or newer, or PyTorch for an older CUDA (docs/image.md)."
        return Finding("driver", told, "fault", remedy)
    if cards.has_driver() and not built:
        return Finding("driver", told, "fault", "Install the PyTorch that build/requirements.txt names.")
    return Finding("driver", told)


def check_card(index: int) -> Finding:
    """One card that PyTorch sees: whether the build has code for it, and how much of its memory is free."""
    architectures = torch.cuda.get_arch_list()
    capability = torch.cuda.get_device_capability(index)
    free, total = torch.cuda.mem_get_info(index)
    subject = f"card {index}"
    told = (
        f"{torch.cuda.get_device_name(index)}, compute capability {'.'.join(map(str, capability))}, "
        f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    )
    if not cards.is_built_for(capability, architectures):
        told += f"; PyTorch is built for {cards.oldest_built_for(architectures)} and newer"
        return Finding(subject, told, "fault", "Install PyTorch for an older CUDA (docs/image.md).")
    if free < (1 - OTHERS) * total:
        remedy = "Others use this card: nvidia-smi says who. Choose free cards by CUDA_VISIBLE_DEVICES."
        return Finding(subject, told, "warning", remedy)
    return Finding(subject, told)


def _nccl() -> Finding:
    if not torch.distributed.is_nccl_available():
        return Finding("NCCL", "none in this PyTorch", "fault", "Install a build of PyTorch that has NCCL.")
    return Finding("NCCL", ".".join(map(str, torch.cuda.nccl.version())))
