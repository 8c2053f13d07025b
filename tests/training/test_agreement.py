"""Ranks that were not given the same: refused before anything is trained, and told in what they differ."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import small
from ports import kept_port

from lvae_torch.train import train

REPOSITORY = Path(__file__).resolve().parents[2]


def end_of(module: str, folder: Path, per_rank: Sequence[dict[str, Any]], *arguments: str) -> list[str]:
    """What each rank says at last; all must end with status 2. Each is told its own settings."""
    (folder / "small.cfg").write_text(small.CFG)
    ranks = []
    with kept_port() as port:
        for rank, overrides in enumerate(per_rank):
            sets = [part for item in small.override_list(folder, overrides) for part in ("--set", item)]
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(per_rank))}
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-m", module, str(folder / "small.cfg"), *sets, *arguments]
            environment = os.environ | place | meeting | {"PYTHONPATH": str(REPOSITORY)}
            ranks.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        said = [process.communicate(timeout=250)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [2] * len(ranks), said
    return said


def test_ranks_of_other_settings_do_not_train_together(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    for text in end_of("lvae_torch.train", tmp_path, [{"train__steps": 4}, {"train__steps": 6, "run__device": "cpu"}]):
        assert "do not have the same settings and data" in text
        assert f"rank 0 ({socket.gethostname()}, process " in text
        assert text.count("[train] steps = 4\n") == text.count("[train] steps = 6\n") == 1
        assert "device" not in text.partition("The processes")[2], "which a node may choose for itself"
    assert not (tmp_path / "runs").exists()


def test_ranks_of_other_data_do_not_train_together(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    small.write_dump(tmp_path / "others", n_test=9)
    others = {"data__dumps": str(tmp_path / "others")}
    for text in end_of("lvae_torch.train", tmp_path, [{}, others]):
        assert text.count("data small (content") == 2


def test_ranks_that_do_not_see_the_same_runs_do_not_train_on(tmp_path: Path) -> None:
    """The first start of such a run works; its second would train on from two states."""
    small.write_dump(tmp_path / "dumps")
    train(small.settings(tmp_path, train__steps=4))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "runs" / "small" / "checkpoints").iterdir()}
    elsewhere = {"train__steps": 8, "run__runs": str(tmp_path / "elsewhere")}
    for text in end_of("lvae_torch.train", tmp_path, [{"train__steps": 8}, elsewhere]):
        assert "do not have the same checkpoint" in text
        assert "checkpoint of step 4, " in text
        assert "no checkpoint" in text
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "runs" / "small" / "checkpoints").iterdir()}


def test_ranks_that_found_other_checkpoints_do_not_use_them_together(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    for name, steps in (("runs", 4), ("elsewhere", 6)):
        train(small.settings(tmp_path, train__steps=steps, run__runs=str(tmp_path / name)))
    elsewhere = {"run__runs": str(tmp_path / "elsewhere")}
    for text in end_of("lvae_torch.synthesize", tmp_path, [{}, elsewhere], "--mode=reconstruction"):
        assert "checkpoint of step 4" in text
        assert "checkpoint of step 6" in text
