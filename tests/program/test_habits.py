"""How the code is written: how large things get, that nothing runs what a file says, and nothing happens on import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import ROOT, dotted, place, sources, tree

MAX_LINES, MAX_FUNCTION = 300, 60


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in sources("lvae_torch", "data_scripts", "benchmarks", "tests"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_LINES:
            long.append(f"{place(path, 1)}: {lines} lines, at most {MAX_LINES}")
    for path in sources("lvae_torch", "data_scripts", "benchmarks"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                length = node.end_lineno - node.lineno + 1
                if length > MAX_FUNCTION:
                    long.append(f"{place(path, node.lineno)}: {node.name} has {length} lines, at most {MAX_FUNCTION}")
    assert not long, "\n".join(["", *long])


def unsafe(path: Path) -> Iterator[tuple[int, str]]:
    """Calls that would run what somebody put into a file, and loads that do not say that they will not."""
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        says = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if call in {"eval", "exec", "compile", "__import__"}:
            yield node.lineno, call
        if call in {"pickle.load", "pickle.loads"}:
            yield node.lineno, f"{call}; derive a pickle.Unpickler that names what it accepts"
        if says.get("weights_only", "True") != "True" or (call == "torch.load" and "weights_only" not in says):
            yield node.lineno, f"{call} without weights_only=True"
        if says.get("allow_pickle", "False") != "False" or (call == "np.load" and "allow_pickle" not in says):
            yield node.lineno, f"{call} without allow_pickle=False"


def test_nothing_runs_what_a_file_says() -> None:
    found = [f"{place(p, line)}: {what}" for p in sources("lvae_torch", "data_scripts") for line, what in unsafe(p)]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(
    "text",
    [
        *("eval('1')", "exec('1')", "pickle.load(f)", "pickle.loads(b)", "torch.load(p)", "np.load(p)"),
        *("torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=x)"),
    ],
)
def test_the_search_for_unsafe_calls_finds_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.py").write_text(f"def f(p):\n    return {text}\n")
    assert [line for line, _ in unsafe(tmp_path / "a.py")] == [2]


IMPORT_ALL = """
import importlib, os, random, signal, sys
import numpy, torch

def choices():
    return (
        torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(), torch.is_grad_enabled(),
        torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate(), dict(os.environ),
        torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision(), torch.cuda.is_initialized(),
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)], os.getcwd(),
    )
before = choices()
for name in sys.argv[1:]:
    importlib.import_module(name)
assert choices() == before, "importing changed something"
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_nothing_happens_on_import() -> None:
    modules = [dotted(path) for path in sources("lvae_torch", "data_scripts") if path.name != "__main__.py"]
    result = python("-c", IMPORT_ALL, *modules)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_settings_are_read_without_heavy_packages() -> None:
    """So that ``--help`` and a wrong cfg answer at once."""
    heavy = ["torchvision", "tensorboard", "matplotlib", "PIL", "scipy", "skimage"]
    script = f"import sys, lvae_torch.hparams, lvae_torch.cli; print([m for m in {heavy} if m in sys.modules])"
    result = python("-c", script)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr
