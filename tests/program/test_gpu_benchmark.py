"""``python -m benchmarks.gpu``, on the CPU: that all checks run, and what becomes of those that do not."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.bench import Bench, Row
from benchmarks.gpu.checks import CHECKS, Check, carried_out
from benchmarks.gpu.exactness import FAMILIES
from benchmarks.gpu.speed import kind_of
from lvae_torch.distributed.launcher import is_gone
from lvae_torch.models import families

ROOT = Path(__file__).resolve().parents[2]
CPU = Bench(torch.device("cpu"), is_quick=True)


def test_every_family_is_checked() -> None:
    assert FAMILIES.keys() == families.FAMILIES.keys()


@pytest.mark.slow
def test_all_checks_pass_on_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--json", str(tmp_path / "found")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {result["check"]: result for result in json.loads((tmp_path / "found").read_text())["results"]}
    assert found.keys() == {name for name, check in CHECKS.items() if not check.needs_card}
    assert {result["ended"] for result in found.values()} == {"done"}
    assert {row["what"] for row in found["families"]["rows"]} == FAMILIES.keys()


def hangs(bench: Bench) -> Iterator[Row]:
    yield Row("before", {})
    child = subprocess.Popen(["sleep", "60"])
    yield Row("child", {"pid": child.pid})
    time.sleep(60)


def fails(bench: Bench) -> Iterator[Row]:
    yield Row("before", {})
    raise ValueError("no such kernel\nand so on")


def dies(bench: Bench) -> Iterator[Row]:
    yield Row("before", {})
    os._exit(1)


@pytest.mark.slow
def test_a_check_that_hangs_fails_or_dies_ends_alone_with_what_it_found() -> None:
    for run, ended in ((fails, "ValueError: no such kernel"), (dies, "its process died")):
        result = carried_out("check", Check(run, 0), CPU, seconds=200)
        assert (result.ended, len(result.rows), result.is_well) == (ended, 1, False)
    hung = carried_out("hangs", Check(hangs, 0), CPU, seconds=20)
    assert (hung.ended, [row.what for row in hung.rows]) == ("time over", ["before", "child"])
    assert is_gone(int(hung.rows[1].numbers["pid"])), "what it started ended with it"


def test_a_number_that_is_wrong_is_told() -> None:
    from benchmarks.gpu.__main__ import told
    from benchmarks.gpu.checks import Result

    result = Result("sums", [Row("small", {"error": 1e-7}), Row("large", {"error": 0.5}, passed=False)])
    assert not result.is_well
    lines = list(told(result))
    assert "NOT AS IT MUST BE" in lines[2] and "NOT" not in lines[1]


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_f32f32", "convolutions and products"),
        ("void at::native::vectorized_elementwise_kernel<4, ...>", "element by element"),
        ("void at::native::reduce_kernel<512, 1, ...>", "sums and norms"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("something_new", "others"),
    ],
)
def test_kernels_have_kinds(kernel: str, kind: str) -> None:
    assert kind_of(kernel) == kind
