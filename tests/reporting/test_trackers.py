"""Trackers hold the curves of ``metrics.jsonl``, go on in the same run, and never get in the way of a training."""

import json
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

from lvae_torch.errors import CfgError
from lvae_torch.hparams import load_text
from lvae_torch.reporting import guarded
from lvae_torch.reporting.guarded import GuardedReporter
from lvae_torch.reporting.trackers import Tracked, tensorboard
from lvae_torch.reporting.trackers.mlflow import metric_name
from lvae_torch.runs.folder import RunFolder
from lvae_torch.train import train


class Listening:
    """A reporter that keeps what it is told; and fails when told so."""

    def __init__(self, fails_at: int | None = None, error: BaseException | None = None) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.is_closed = False
        self._fails_at, self._error = fails_at, error or RuntimeError("no network")

    def scalars(self, step: int, values: Any) -> None:
        if step == self._fails_at:
            raise self._error
        self.heard.append((step, dict(values)))

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        self.heard.append((step, tag, grid.shape))

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        self.heard.append((step, tag, len(values)))

    def close(self) -> None:
        self.is_closed = True


def test_everything_is_passed_on_in_order() -> None:
    inner = Listening()
    reporter, values = GuardedReporter("x", lambda: inner), {"a": 1.0}
    reporter.scalars(1, values)
    values["a"] = 2.0  # what the caller does later is another matter
    reporter.image(2, "p", np.zeros((2, 3, 3), np.uint8))
    reporter.histogram(3, "h", np.zeros(4))
    reporter.close()
    assert inner.heard == [(1, {"a": 1.0}), (2, "p", (2, 3, 3)), (3, "h", 4)] and inner.is_closed


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SystemExit(1), ValueError("x\ny"), KeyError()]
)
def test_the_first_failure_is_told_once(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    inner = Listening(fails_at=2, error=error)
    reporter = GuardedReporter("wandb", lambda: inner)
    for step in range(1, 6):
        reporter.scalars(step, {"a": float(step)})
    reporter.close()
    assert inner.heard == [(1, {"a": 1.0})] and not inner.is_closed
    assert capsys.readouterr().err.count("tracker wandb: failed") == 1


def test_one_that_cannot_be_opened_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> Listening:
        raise ConnectionError("nobody there")

    reporter = GuardedReporter("mlflow", refuse)
    reporter.scalars(1, {})
    reporter.close()
    assert "tracker mlflow: failed, and is told no more (ConnectionError: nobody there)" in capsys.readouterr().err


def test_a_slow_one_slows_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(guarded, "PATIENCE", 0.2)
    monkeypatch.setattr(guarded, "MOST_WAITING", 5)
    over = threading.Event()

    def hang() -> Listening:
        over.wait(30)
        return Listening()

    reporter, begun = GuardedReporter("slow", hang), time.monotonic()
    for step in range(100):
        reporter.scalars(step, {})
    reporter.close()
    assert time.monotonic() - begun < 25, "it waited for the one that hangs for 30 seconds"
    told = capsys.readouterr().err
    assert told.count("is too slow") == 1 and "does not answer" in told
    over.set()


def test_a_training_goes_on_without_its_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tensorboard, "reporter", lambda run: Listening(fails_at=2))
    small.write_dump(tmp_path / "dumps")
    train(small.settings(tmp_path))
    assert json.loads((tmp_path / "runs/small/status.json").read_text())["state"] == "finished"
    assert capsys.readouterr().err.count("tracker tensorboard: failed") == 1


def test_no_tracker_is_a_choice(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    train(small.settings(tmp_path, run__trackers=[]))
    assert not (tmp_path / "runs/small/tensorboard").exists() and (tmp_path / "runs/small/metrics.jsonl").is_file()


def test_cfgs_without_the_key_have_tensorboard(tmp_path: Path) -> None:
    assert small.settings(tmp_path).run.trackers == ("tensorboard",)
    with pytest.raises(
        CfgError, match=r"\[run\] trackers.*needs one of 'tensorboard', 'wandb', 'mlflow'.*mean 'wandb'"
    ):
        small.settings(tmp_path, run__trackers=["wandbb"])


def test_missing_packages_are_told_when_a_training_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    loading = import_module("lvae_torch.hparams.load")
    monkeypatch.setattr("lvae_torch.runs.trackers.find_spec", lambda name: None)
    cfg = small.CFG.replace("device = cpu", "device = cpu\ntrackers = ['wandb', 'mlflow']")
    load_text(cfg, "small.cfg")  # a run that is only used needs none of them
    with pytest.raises(CfgError) as told:
        loading._checked(loading.parse(cfg, "small.cfg"), "small.cfg", [], with_images=True)
    assert "lvae_torch[wandb]" in str(told.value) and "lvae_torch[mlflow]" in str(told.value)


def test_a_tracker_keeps_what_it_calls_a_run(tmp_path: Path) -> None:
    run = Tracked(RunFolder(tmp_path, "a"), 0, 1, "")
    (tmp_path / "a").mkdir()
    names = iter(["one", "two", "three", "four"])
    assert [run.kept("wandb", lambda: next(names)) for _ in range(2)] == ["one", "one"]
    assert run.kept("mlflow", lambda: next(names)) == "two" and run.kept("wandb", lambda: next(names)) == "one"
    (tmp_path / "a").rename(tmp_path / "b")
    assert Tracked(RunFolder(tmp_path, "b"), 0, 1, "").kept("wandb", lambda: next(names)) == "three"
    (tmp_path / "b" / "trackers.json").write_text("{")
    assert Tracked(RunFolder(tmp_path, "b"), 0, 1, "").kept("wandb", lambda: next(names)) == "four"


@pytest.fixture
def resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The folder of a run that was stopped and continued, with the tracker that the test names."""
    for variable in ("WANDB_MODE", "WANDB_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for variable, value in {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(variable, value)
    small.write_dump(tmp_path / "dumps")
    for steps in (4, 6):
        train(small.settings(tmp_path, run__trackers=[request.param], train__steps=steps))
    yield tmp_path / "runs" / "small"


def curves_of(folder: Path) -> dict[str, dict[int, float]]:
    """Numbers by name and step, as ``metrics.jsonl`` has them."""
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for key, value in record.items():
            if key not in ("step", "time", "crc32") and isinstance(value, float):
                curves[key][record["step"]] = value
    return curves


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the trackers' own
@pytest.mark.parametrize("resumed", ["mlflow"], indirect=True)
def test_mlflow_holds_the_same_curves(resumed: Path) -> None:
    pytest.importorskip("mlflow", reason="needs the extra 'mlflow'")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(resumed.parent / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("lvae_torch").experiment_id])
    assert run.info.run_name == "small" and run.info.status == "FINISHED"
    assert run.data.params["model.family"] == "spatial_lvae"
    expected = curves_of(resumed)
    assert {"train/nelbo", "val/nelbo", "train/kl/00", "speed/images_per_second"} <= expected.keys()
    for key, curve in expected.items():
        found = {m.step: m.value for m in client.get_metric_history(run.info.run_id, metric_name(key))}
        assert found == pytest.approx(curve), key
    pictures = {item.path.split("/")[1].split("+")[0] for item in client.list_artifacts(run.info.run_id, "images")}
    assert pictures == {"samples", "reconstructions"}


def offline_records(path: Path) -> Iterator[Any]:
    """The records of a W&B file: blocks of 32 KiB of fragments with headers of 7 bytes, as LevelDB writes logs."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, pending = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        pending += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last fragment
            record = Record()
            record.ParseFromString(pending)
            pending = b""
            yield record


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the trackers' own
@pytest.mark.parametrize("resumed", ["wandb"], indirect=True)
def test_wandb_offline_holds_the_same_curves(resumed: Path) -> None:
    pytest.importorskip("wandb", reason="needs the extra 'wandb'")
    files = sorted((resumed / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2 and len({path.stem for path in files}) == 1, "the same run, twice"
    found: dict[str, dict[int, float]] = defaultdict(dict)
    names, pictures = set(), set()
    for path in files:
        for record in offline_records(path):
            if record.WhichOneof("record_type") == "run":
                names.add(record.run.display_name)
            if record.WhichOneof("record_type") != "history":
                continue
            items = {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item
            }
            for key, value in items.items():
                if isinstance(value, int | float):
                    found[key][items["step"]] = value
                elif value == "image-file":  # .../_type
                    pictures.add(key.rpartition("/")[0])
    assert names == {"small"} and pictures == {"samples", "reconstructions"}
    for key, curve in curves_of(resumed).items():
        assert found[key] == pytest.approx(curve), key
