"""Paths as people write them, cfg files of Windows editors, and what ``synthesize`` takes for a run."""

import argparse
import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small
import torch

import data_scripts
import lvae_torch
from data_scripts.commands import command as data
from data_scripts.commands import parser as data_parser
from lvae_torch.cli import COMMANDS, module_of
from lvae_torch.data import write_dump
from lvae_torch.data.dump import Dump
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import expanded
from lvae_torch.hparams import load, load_text
from lvae_torch.synthesize import command as synthesize
from lvae_torch.train import train
from lvae_torch.trained.loading import find_run


def test_home_and_variables_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    paths = ["run.runs='~/r'", "data.dumps='${SCRATCH}/d'", "synthesis.source='$SCRATCH/e'"]
    settings = load_text(small.CFG, "small.cfg", paths)
    assert settings.run.runs == f"{tmp_path}/r"
    assert (settings.data.dumps, settings.synthesis.source) == ("/scratch/me/d", "/scratch/me/e")
    assert expanded("a/~/b$") == "a/~/b$", "as a shell has it"


@pytest.mark.parametrize("path", ["$NOT_SET_ANYWHERE/r", "${NOT_SET_ANYWHERE}/r", "~nobody-of-this-name/r"])
def test_what_cannot_be_replaced_is_refused_by_key(path: str) -> None:
    with pytest.raises(CfgError, match=r"\[run\] runs = .*(NOT_SET_ANYWHERE.* is not set|no home folder)"):
        load_text(small.CFG, "small.cfg", [f"run.runs={path!r}"])


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    """In a cfg, and in the file that it refines."""
    windows = small.CFG.strip().replace("\n", "\r\n").encode()
    (tmp_path / "base.cfg").write_bytes(b"\xef\xbb\xbf" + windows)
    (tmp_path / "a.cfg").write_bytes(b"\xef\xbb\xbf[base]\r\nfile = base.cfg\r\n[train]\r\nsteps = 9\r\n")
    assert load(tmp_path / "base.cfg") == load_text(small.CFG, "small.cfg")
    assert load(tmp_path / "a.cfg").train.steps == 9


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    small.write_dump(folder / "dumps")
    train(small.settings(folder, train__steps=4, val__every=0))
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a run's folder of folders, from where commands are given."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_checkpoint_on_its_own_is_a_run(folder: Path) -> None:
    """What a colleague sends: it holds settings and weights. Its draws are those of the run."""
    run = lvae_torch.load_run("small")
    (folder / "sent").mkdir()
    shutil.copy(folder / "runs/small/checkpoints/step_00000004.pt", folder / "sent/model.pt")
    shutil.rmtree(folder / "runs")
    sent = lvae_torch.load_run("sent/model.pt")
    assert sent.step == 4 and torch.equal(sent.sample(3, seed=1), run.sample(3, seed=1))
    synthesize(["sent/model.pt", "--mode", "generation"])
    assert (folder / "runs/small/synthesis/generation/metrics.json").is_file()
    with pytest.raises(CfgError, match=r"model\.pt: the checkpoint of step 4; \[synthesis\] checkpoint = 2"):
        lvae_torch.load_run("sent/model.pt", checkpoint=2)


def test_a_checkpoint_inside_a_run_is_of_that_run(folder: Path) -> None:
    (folder / "runs/small").rename(folder / "runs/moved")
    settings, _ = find_run("runs/moved/checkpoints/step_00000002.pt")
    assert (settings.run.name, settings.run.runs) == ("moved", str(folder.resolve() / "runs"))
    assert lvae_torch.load_run("runs/moved/checkpoints/step_00000002.pt").step == 2


def test_the_weights_of_a_bundle_are_the_bundle(folder: Path) -> None:
    from lvae_torch.export import command as export

    export(["small", "bundle"])
    assert lvae_torch.load_run("bundle/model.safetensors").step == lvae_torch.load_run("bundle").step == 4


def test_a_run_is_exported_from_inside_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a bundle from inside its own."""
    from lvae_torch.export import command as export

    monkeypatch.chdir(folder / "runs/small")
    export([".", str(folder / "bundle")])
    monkeypatch.chdir(folder / "bundle")
    export([".", str(folder / "again")])
    assert lvae_torch.load_run(folder / "again").step == 4


def test_a_file_of_the_same_name_does_not_hide_a_run(folder: Path) -> None:
    Path("small").write_text("notes")
    assert find_run("small")[0].run.name == "small" and lvae_torch.load_run("small").step == 4
    Path("other").write_text("notes")
    with pytest.raises(DataError, match="other: refused"):
        find_run("other")


def test_a_run_without_manifests_tells_how_it_can_be_used(folder: Path) -> None:
    for manifest in (folder / "runs/small/checkpoints").glob("*.json"):
        manifest.unlink()
    with pytest.raises(DataError, match=r"manifest.*name the file itself: .*step_00000004\.pt"):
        lvae_torch.load_run("small")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("runs/typo", r"runs/typo: there is no such run.*Runs: runs has small"),
        ("typo", r"typo: there is no such run.*Runs: runs has small"),
        ("runs/a b/ü", "there is no such run"),
        ("$NOT_SET_ANYWHERE/m", "NOT_SET_ANYWHERE of .* is not set"),
    ],
)
def test_a_mistyped_run_is_told_with_those_there_are(folder: Path, what: str, message: str) -> None:
    with pytest.raises(CfgError, match=message):
        find_run(what)


def test_a_run_without_its_settings_names_a_checkpoint(folder: Path) -> None:
    (folder / "runs/small/hparams.cfg").unlink()
    with pytest.raises(CfgError, match=r"hparams\.cfg is missing.*name a checkpoint.*step_00000004\.pt"):
        find_run("runs/small")


def test_a_file_that_is_no_checkpoint(folder: Path) -> None:
    (folder / "x.pt").write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match=r"x\.pt: refused"):
        find_run("x.pt")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and another one from where commands are given, in which no folder called ~ may appear."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_dumps_are_made_in_the_home_folder(home: Path) -> None:
    """bash leaves the ~ of --dumps=~/d to the program, and so does every caller from Python."""
    data(["toy2d", "--dumps=~/d"])
    data(["--dumps=~/d", "--verify", "toy2d_1a"])
    data_scripts.make("toy2d", "~/e")
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    made = write_dump("mine", {"train": images}, dumps="~/f")
    assert made.folder == home / "f" / "mine"
    assert Dump.open(home / "d", "toy2d_1a").content_hash == Dump.open(home / "e", "toy2d_1a").content_hash
    assert not [*Path().iterdir()]


def test_sources_lie_in_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "nowhere")
    with pytest.raises(DataError, match=f"{home}/pictures: no such folder or file"):
        data_scripts.make("images", "~/d", source="~/pictures", name="x")
    with pytest.raises(CfgError, match=r"--source is '~nobody-of-this-name/x'.*no home folder"):
        data_scripts.make("images", "~/d", source="~nobody-of-this-name/x", name="x")
    with pytest.raises(DataError, match=f"{home}/mirror/"):
        data_scripts.make("mnist", "~/d", mirror="~/mirror")
    with pytest.raises(CfgError, match="there is no home folder"):
        write_dump("mine", {"train": np.zeros((2, 4, 4), np.uint8)}, dumps="~nobody-of-this-name/x")


def test_runs_are_found_in_the_home_folder(trained: Path, home: Path) -> None:
    shutil.copytree(trained / "runs", home / "r")
    assert lvae_torch.load_run("small", runs="~/r").step == 4
    assert find_run("small", runs="$HOME/r")[1] == home / "r" / "small"
    with pytest.raises(CfgError, match=f"Runs: {home}/nothing has none"):
        find_run("q", runs="~/nothing")
    with pytest.raises(CfgError, match=r"NOT_SET_ANYWHERE of .* is not set"):
        find_run("small", runs="$NOT_SET_ANYWHERE/r")


def options_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from options_of(inner)
        yield action


FOLDERS = {"runs", "dumps", "out", "figures", "folder", "output", "archive", "earlier", "cfg", "cfgs"}


def test_every_command_takes_paths_as_a_shell_does(home: Path) -> None:
    modules = [importlib.import_module(module_of(name)) for name in COMMANDS if name != "data"]
    modules = [m if hasattr(m, "PARSER") else importlib.import_module(f"{m.__name__}.__main__") for m in modules]
    options = [action for module in modules for action in options_of(module.PARSER)] + [*options_of(data_parser())]
    assert not [action.dest for action in options if action.type is Path], "use cli.path_option"
    paths = [action for action in options if action.dest in FOLDERS and action.type is not None]
    assert {action.dest for action in paths} == FOLDERS
    assert {action.type("~/x") for action in paths} == {home / "x"}  # type: ignore[misc, operator]
    for given in ("~nobody-of-this-name/x", "$NOT_SET_ANYWHERE/x"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"no home folder|NOT_SET_ANYWHERE of .* is not set"):
            paths[0].type(given)  # type: ignore[misc, operator]
