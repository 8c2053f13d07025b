"""What can change the last digit of what a network computes: kept in each archive, and compared before it is decoded.

The coding itself is exact everywhere; only the parameters of the distributions must come out the same. In the robust
mode they do on other processors and with other numbers of threads too, so less is compared.
"""

import copy
import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from lvae_torch.compression.stack import coding
from lvae_torch.distributed.cpu import with_threads
from lvae_torch.distributed.place import pytorchs_own_products
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Model

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)
TOLD = Field(max_length=128)


class Conditions(BaseModel):
    """Versions and machine."""

    model_config = STRICT

    torch: str = TOLD
    constriction: str = TOLD
    numpy: str = TOLD
    device: str = TOLD
    """cpu with its instruction set, or the name of a GPU."""
    threads: int = Field(ge=1, le=4096)
    layout: str = TOLD
    """Of the weights in memory: plain or channels_last."""
    precision: str = TOLD
    """Of float32 products."""

    def differences(self, now: "Conditions", is_robust: bool) -> list[str]:
        """What is not as it was, in words; ``threads`` is set, so it never differs."""
        compared = ("constriction",) if is_robust else tuple(set(type(self).model_fields) - {"threads"})
        return [
            f"{name} was {getattr(self, name)}, is {getattr(now, name)}"
            for name in sorted(compared)
            if getattr(self, name) != getattr(now, name)
        ]


def conditions(model: Model, threads: int) -> Conditions:
    """Those of this process; to be asked for inside ``reproducible``."""
    coding()
    from importlib.metadata import version

    device = device_of(model)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{device.type} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    weights = [weight for weight in _module(model).parameters() if weight.dim() == 4]
    last = any(w.is_contiguous(memory_format=torch.channels_last) and not w.is_contiguous() for w in weights)
    return Conditions(
        torch=str(torch.__version__),
        constriction=version("constriction"),
        numpy=np.__version__,
        device=name,
        threads=threads,
        layout="channels_last" if last else "plain",
        precision=torch.get_float32_matmul_precision(),
    )


@contextmanager
def reproducible(model: Model, threads: int) -> Iterator[None]:
    """Inside, the model is in evaluation mode, runs on so many threads, and always chooses the same algorithms."""
    cudnn = torch.backends.cudnn
    before, was_training = (cudnn.benchmark, cudnn.deterministic), model.training
    in_full = torch.autocast(device_of(model).type, enabled=False)
    try:
        cudnn.benchmark, cudnn.deterministic = False, True
        model.eval()
        with with_threads(threads), pytorchs_own_products(), in_full:  # which is how earlier archives were made
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before
        model.train(was_training)


def widened(model: Model) -> Model:
    """A copy in float64, for the robust mode."""
    return cast(Model, copy.deepcopy(_module(model)).double())


def fingerprint(model: Model, n_levels: int, told: str) -> str:
    """Hexadecimal sha256 of the weights, and of what else makes the model: ``told``, such as its settings."""
    digest = hashlib.sha256(f"{type(model).__name__} {model.image_shape} {n_levels} {told}\n".encode())
    for name, tensor in sorted(_module(model).state_dict().items()):
        values = tensor.detach().contiguous().cpu()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def device_of(model: Model) -> torch.device:
    return _first_weight(model).device


def dtype_of(model: Model) -> torch.dtype:
    return _first_weight(model).dtype


def _first_weight(model: Model) -> torch.Tensor:
    for weight in _module(model).parameters():
        return weight
    raise CfgError("this model has no weights.")


def _module(model: Model) -> nn.Module:
    it: Any = model
    assert isinstance(it, nn.Module), type(model)
    return it
