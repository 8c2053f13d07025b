"""What is told of half precision on a CPU."""

import ctypes
import gc

import pytest
import torch

from lvae_torch.distributed.cpu import Half, half_of_cpu, half_told
from lvae_torch.distributed.memory import keep_freed_memory, settled_objects

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "half"),
    [
        ({"avx2": True, "amx_bf16": False}, "none"),
        ({"avx512_f": True}, "none"),
        ({"avx512_bf16": True, "amx_tile": False}, "AVX512_BF16"),
        ({"avx512_bf16": True, "amx_tile": True}, "AMX"),
        ({"amx_bf16": True}, "AMX"),
        ({"bf16": True}, "bf16 instructions"),
    ],
)
def test_what_the_cpu_has(capabilities: dict[str, object], half: Half) -> None:
    assert half_of_cpu(capabilities) == half


def test_this_cpu_has_one_of_them() -> None:
    assert half_of_cpu() in ("AMX", "AVX512_BF16", "bf16 instructions", "none")


@pytest.mark.parametrize(
    ("half", "precision", "told"),
    [
        ("none", "float32", "precision = float32 is the fastest"),
        ("none", "bfloat16", "WARNING: precision = bfloat16, but this CPU has no instructions for bfloat16"),
        ("AMX", "float32", "This CPU has AMX: precision = bfloat16 trains about 2 times faster"),
        ("AMX", "bfloat16", "This CPU has AMX for precision = bfloat16"),
        ("AVX512_BF16", "float32", "about 1.5 times faster"),
        ("bf16 instructions", "float32", "try whether"),
    ],
)
def test_what_is_told(half: Half, precision: str, told: str) -> None:
    assert told in half_told(CPU, precision, half)
    assert half_told(torch.device("cuda"), precision, half) == ""


def test_freed_memory_is_kept_where_the_c_library_can() -> None:
    assert keep_freed_memory() == hasattr(ctypes.CDLL(None), "mallopt")


@pytest.mark.parametrize(("kind", "is_apart"), [("cuda", True), ("cpu", False)])
def test_old_objects_are_kept_from_the_collector_where_a_card_would_wait(kind: str, is_apart: bool) -> None:
    assert gc.get_freeze_count() == 0
    with pytest.raises(ZeroDivisionError), settled_objects(torch.device(kind)):
        assert (gc.get_freeze_count() > 1000) == is_apart
        raise ZeroDivisionError
    assert gc.get_freeze_count() == 0
