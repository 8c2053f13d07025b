"""What ``[train] compile`` needs of the machine: a C compiler, and a folder that keeps what was built."""

import os
import shutil
from pathlib import Path

from lvae_torch.errors import CfgError

COMPILED = ".compiled"
"""The folder beside the runs."""
CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Environment variables of PyTorch and Triton, and where in the folder each points."""


def c_compiler() -> str | None:
    """The path of the C compiler that PyTorch and Triton will find; None if there is none."""
    names = filter(None, (os.environ.get("CC"), "cc", "gcc", "clang"))
    return next((found for name in names if (found := shutil.which(name))), None)


def cache_folders(runs: Path) -> dict[str, Path]:
    """Where what is compiled is kept, by the variable that says so: beside the runs, unless it names another folder."""
    beside = runs.absolute() / COMPILED
    return {variable: Path(os.environ.get(variable) or beside / name) for variable, name in CACHES.items()}


def prepare_compiling(runs: Path) -> None:
    """Let what is compiled be kept beside the runs, unless the environment names another folder.

    Raises:
        CfgError: if there is no C compiler.
    """
    if c_compiler() is None:
        raise CfgError(
            "[train] compile = True builds programs, but this machine has no C compiler (CC, cc, gcc, clang); install "
            "gcc, set CC to one, or set compile = False."
        )
    os.environ.update({variable: str(folder) for variable, folder in cache_folders(runs).items()})
