"""NVIDIA cards: what the system shows of them, and why this PyTorch would or would not use them."""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch

SHOWN = (Path("/proc/driver/nvidia/gpus"), "*"), (Path("/dev"), "nvidia[0-9]*")
"""Where the system shows a card: a folder, and the names of what stands for one."""
DRIVER = Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl")
"""What stands for a driver; the first says which."""
NEEDED = {11: 450, 12: 525, 13: 580}
"""The oldest driver, by its first number, for programs built with a major version of CUDA (NVIDIA's "minor version
compatibility")."""


def cards_shown() -> int:
    """How many cards the system shows, whatever PyTorch can do with them; those that are hidden do not count."""
    return min(_cards_there(), len(cards_by_name()))


def cards_by_name() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` calls each card that is shown and not hidden.

    The variable hides cards that it does not name, all of them where it is empty or -1.
    """
    there, chosen = _cards_there(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(k) for k in range(there)]
    if not there or chosen.strip() in ("", "-1", "none", "NoDevFiles"):
        return []
    return [name.strip() for name in chosen.split(",")]


def _cards_there() -> int:
    return max(sum(1 for _ in folder.glob(names)) for folder, names in SHOWN)


def has_driver() -> bool:
    """Whether this machine has an NVIDIA driver, whatever PyTorch can do with it."""
    return any(path.exists() for path in DRIVER) or shutil.which("nvidia-smi") is not None


def driver_version() -> str | None:
    """The kernel driver's version, such as 580.65.06; None where it cannot be read."""
    try:
        text = DRIVER[0].read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"Kernel Module\s+(?:for \S+\s+)?(\d+(?:\.\d+)+)", text)
    return match[1] if match else None


def driver_needed() -> int | None:
    """The first number of the oldest driver for this PyTorch; None where it is not known."""
    cuda = torch.version.cuda
    return NEEDED.get(int(cuda.partition(".")[0])) if cuda else None


def is_built_for(capability: tuple[int, int], architectures: Iterable[str]) -> bool:
    """Whether a build has code for a card: ``sm_75`` runs on 7.5 to 7.9, ``compute_90`` on 9.0 and newer."""
    major, minor = capability
    for name in architectures:
        kind, _, digits = name.partition("_")
        if not (number := re.match(r"\d+", digits)):
            continue
        ours = divmod(int(number[0]), 10)
        if (kind == "sm" and ours[0] == major and ours[1] <= minor) or (kind == "compute" and ours <= capability):
            return True
    return False


def oldest_built_for(architectures: Iterable[str]) -> str:
    """The lowest compute capability of a build, such as 7.5; "none" for a build without CUDA."""
    numbers = [int(match[0]) for name in architectures if (match := re.search(r"\d+", name))]
    return "{}.{}".format(*divmod(min(numbers), 10)) if numbers else "none"


def why_unused() -> str:
    """Why PyTorch uses no card though the system shows one, as far as can be told, and what to do."""
    build = f"PyTorch {torch.__version__}"
    if torch.version.cuda is None:
        return f"{build} is built without CUDA. Install the build that build/requirements.txt names"
    build, driver, needed = f"{build}, built for CUDA {torch.version.cuda},", driver_version(), driver_needed()
    if driver and needed and int(driver.partition(".")[0]) < needed:
        return (
            f"{build} needs driver {needed} or newer, while this one is {driver}. Install a newer driver, or PyTorch "
            "for an older CUDA (docs/image.md)"
        )
    return f"{build} cannot use it: {_own_words()}. Compare driver and build with what nvidia-smi says"


def _own_words() -> str:
    """What PyTorch itself says, in one line."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split()).rstrip(".")
    return "it finds no device"
