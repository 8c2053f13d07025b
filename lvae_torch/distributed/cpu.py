"""What the CPU can do with half precision, what follows for a run on it, and on how many threads it computes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch

Half = Literal["AMX", "AVX512_BF16", "bf16 instructions", "none"]
"""What multiplies numbers in bfloat16; without it each is converted to float32 and back."""

GAINS: dict[Half, str] = {"AMX": "2", "AVX512_BF16": "1.5"}
"""Of the training of convolutional models over float32, as measured (docs/performance.md)."""


def half_of_cpu(capabilities: Mapping[str, object] | None = None) -> Half:
    """What this CPU has, as PyTorch finds it (or as ``capabilities``, named as PyTorch names them, tell)."""
    has = torch.cpu.get_capabilities() if capabilities is None else capabilities
    if has.get("amx_bf16") or (has.get("amx_tile") and has.get("avx512_bf16")):
        return "AMX"
    if has.get("avx512_bf16"):
        return "AVX512_BF16"
    return "bf16 instructions" if has.get("bf16") else "none"  # ARM


def half_told(device: torch.device, precision: str, half: Half | None = None) -> str:
    """The line that a run on a CPU begins with: what ``precision`` means there; empty on other devices.

    Args:
        half: what the CPU has, if not to be found out.
    """
    if device.type != "cpu":
        return ""
    half = half or half_of_cpu()
    if half == "none":
        if precision == "bfloat16":
            return (
                "WARNING: precision = bfloat16, but this CPU has no instructions for bfloat16: it is several times "
                "slower than float32. Set precision = float32."
            )
        return "This CPU has no instructions for bfloat16: precision = float32 is the fastest."
    if precision == "bfloat16":
        return f"This CPU has {half} for precision = bfloat16."
    if gain := GAINS.get(half):
        return f"This CPU has {half}: precision = bfloat16 trains about {gain} times faster (convolutional models)."
    return f"This CPU has {half}, and nobody has measured it: try whether precision = bfloat16 is faster."


@contextmanager
def with_threads(n_threads: int) -> Iterator[None]:
    """Inside, PyTorch computes on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
