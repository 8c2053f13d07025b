"""The command line: finding runs, exit statuses."""

import errno
from pathlib import Path

import pytest
import small

from lvae_torch.cli import main
from lvae_torch.errors import CfgError, DataError
from lvae_torch.train import train
from lvae_torch.trained.loading import find_run


def test_a_run_is_found_by_name_folder_or_cfg(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    train(small.settings(tmp_path, train__steps=1, val__images=0))
    moved = tmp_path / "elsewhere"
    (tmp_path / "runs").rename(moved)
    by_name = find_run("small", [], str(moved))[0]
    by_folder = find_run(str(moved / "small"), ["synthesis.n_images=3"])[0]
    assert by_name.run.runs == by_folder.run.runs == str(moved)
    assert by_folder.synthesis.n_images == 3
    cfg = tmp_path / "small.cfg"
    cfg.write_text(small.CFG)
    assert find_run(str(cfg))[0].run.name == "small"


@pytest.mark.parametrize("name", ["nothing", "../nothing", "a..b"])
def test_what_is_no_run_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(CfgError, match=r"nothing|a\.\.b"):
        find_run(name, [], str(tmp_path))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CfgError("x"), 2),
        (DataError("x"), 3),
        (OSError(30, "read-only", "x"), 3),
        (KeyboardInterrupt(), 75),
    ],
)
def test_exit_status(error: BaseException, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    def command(argv: object) -> None:
        raise error

    with pytest.raises(SystemExit) as exit_:
        main(command, [])
    assert exit_.value.code == status
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("number", "remedy"), [(errno.EACCES, "Change its rights"), (errno.ENOSPC, "Make room there")])
def test_a_disk_is_told_of_by_what_helps(number: int, remedy: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command(argv: object) -> None:
        raise OSError(number, "no", "x.png")

    with pytest.raises(SystemExit):
        main(command, [])
    assert capsys.readouterr().err.startswith(f"x.png: no. {remedy}")
