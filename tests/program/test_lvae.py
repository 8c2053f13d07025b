"""The ``lvae`` command: one name for all, with help that does not wait for PyTorch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lvae_torch.cli import COMMANDS, module_of

ROOT = Path(__file__).resolve().parents[2]
EACH_IN_TURN = """
import contextlib, io, json, runpy, sys
told = []
for module, arguments in json.loads(sys.argv[1]):
    sys.argv = ["lvae", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            status = 0
        except SystemExit as end:
            status = end.code
    told.append([status or 0, out.getvalue(), err.getvalue(), "torch" in sys.modules])
print(json.dumps(told))
"""
LIGHT = [name for name in COMMANDS if name != "data"]
"""The commands whose help needs no PyTorch: the datasets list themselves."""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def each_in_turn(*calls: tuple[str, list[str]]) -> list[Any]:
    """Exit status, output, errors, and whether PyTorch was imported by then, of modules run with arguments."""
    result = python("-c", EACH_IN_TURN, json.dumps(calls))
    assert result.returncode == 0, result.stderr
    return list(json.loads(result.stdout))


def test_alone_it_lists_the_commands() -> None:
    for status, out, _, _ in each_in_turn(("lvae_torch", []), ("lvae_torch", ["--help"])):
        assert status == 0
        assert all(f"lvae {name}" in out and told in out for name, told in COMMANDS.items())


def test_an_unknown_command_is_refused() -> None:
    ((status, _, err, _),) = each_in_turn(("lvae_torch", ["trian", "x.cfg"]))
    assert status == 2
    assert "no command 'trian'. Did you mean 'train'?" in err and "lvae train" in err


def test_a_misspelt_choice_is_guessed() -> None:
    misspelt, alien = (("lvae_torch", ["synthesize", "x", "--mode", mode]) for mode in ("reconstrution", "zzz"))
    (status, _, guessed, has_torch), (_, _, err, _) = each_in_turn(misspelt, alien)
    assert (status, has_torch) == (2, False)
    assert guessed.strip().endswith("Did you mean 'reconstruction'?") and "Did you mean" not in err


def test_every_command_helps_in_both_ways_and_does_not_import_torch_for_it() -> None:
    with_lvae = each_in_turn(*(("lvae_torch", [name, "--help"]) for name in LIGHT))
    as_modules = each_in_turn(*((module_of(name), ["--help"]) for name in LIGHT))
    for name, (status, out, err, has_torch), other in zip(LIGHT, with_lvae, as_modules, strict=True):
        assert (status, err, has_torch) == (0, "", False), name
        assert out.startswith("usage: ") and COMMANDS[name].split(":")[0] in " ".join(out.split()), name
        assert other == [0, out, "", False], name


def test_wrong_usage_is_told_before_torch_is_imported() -> None:
    for status, _, err, has_torch in each_in_turn(*((module_of(name), ["--no-such-option"]) for name in LIGHT)):
        assert (status, has_torch) == (2, False)
        assert "--no-such-option" in err or "required" in err


def test_datasets_have_help_too() -> None:
    ((status, out, _, _),) = each_in_turn(("lvae_torch", ["data", "--help"]))
    assert status == 0 and "binarized_mnist" in out


def test_each_dataset_is_told_in_a_phrase() -> None:
    from data_scripts.recipes import RECIPES

    assert RECIPES["images"].summary.startswith("your own images of any size; download none")
    assert RECIPES["toy2d"].summary.startswith("10,000 + 2,500 + 2,500 images of 2 numbers (points); download none")


def test_importing_the_package_does_not_import_torch() -> None:
    result = python("-c", "import sys, lvae_torch; print('torch' in sys.modules, lvae_torch.__version__ != '')")
    assert result.stdout.split() == ["False", "True"], result.stderr


def test_what_the_package_does_not_have_is_an_ordinary_error() -> None:
    import lvae_torch

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lvae_torch.nothing  # noqa: B018
    assert callable(lvae_torch.load_run) and callable(lvae_torch.build_model) and lvae_torch.TrainedRun


def test_errors_keep_their_exit_status() -> None:
    result = python("-m", "lvae_torch", "train", "nothing.cfg")
    assert result.returncode == 2
    assert "nothing.cfg: cannot be read" in result.stderr and "Traceback" not in result.stderr
