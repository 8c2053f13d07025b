"""TensorBoard files: whole, resumed, and without repetition."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_reporting import GRID, full_disk

from lvae_torch.errors import DataError
from lvae_torch.reporting.trackers.tensorboard import TensorBoardReporter

# TensorBoard


def accumulated(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # 0: keep everything
    sizes = dict.fromkeys(("scalars", "images", "tensors"), 0)
    return EventAccumulator(str(folder), size_guidance=sizes).Reload()


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in accumulated(folder).Scalars(tag)]


def test_numbers_and_pictures_come_back(tmp_path: Path) -> None:
    reporter = TensorBoardReporter(tmp_path)
    for step in (10, 20):
        reporter.scalars(step, {"train/elbo": -step / 4, "val/kl/03": 0.5})
    reporter.scalars(30, {"train/elbo": float("nan")})
    reporter.image(20, "samples", GRID)
    reporter.close()
    events = accumulated(tmp_path)
    assert set(events.Tags()["scalars"]) == {"train/elbo", "val/kl/03"}
    assert curve(tmp_path, "val/kl/03") == [(10, 0.5), (20, 0.5)]
    steps, values = zip(*curve(tmp_path, "train/elbo"), strict=True)
    assert steps == (10, 20, 30) and values[:2] == (-2.5, -5.0) and np.isnan(values[2])
    (image,) = events.Images("samples")
    assert image.step == 20
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(image.encoded_image_string))), GRID)


def test_numbers_are_on_disk_before_the_writer_is_closed(tmp_path: Path) -> None:
    reporter = TensorBoardReporter(tmp_path)
    reporter.scalars(1, {"a": 2.0})
    assert curve(tmp_path, "a") == [(1, 2.0)]
    reporter.close()


def test_settings_are_shown_without_a_run_of_their_own(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import metadata

    cfg = "[train]\nsteps = 9\n"
    for start_step in (0, 5):  # a resumed run tells them again
        reporter = TensorBoardReporter(tmp_path, start_step)
        reporter.hparams(cfg, {"train.steps": 9, "model.merge": "linear", "model.gated": True})
        reporter.close()
    assert all(path.is_file() for path in tmp_path.iterdir()), "a folder would be shown as another run"
    events = accumulated(tmp_path)
    text = events.Tensors("hparams/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert text == f"```\n{cfg}```"
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    assert {key: value.number_value or value.string_value for key, value in values.items()} == {
        "train.steps": 9.0,
        "model.merge": "linear",
        "model.gated": 1.0,
    }
    experiment = metadata.parse_experiment_plugin_data(
        events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    )
    assert [metric.name.tag for metric in experiment.metric_infos] == ["val/nelbo"]


@pytest.mark.parametrize("start_step", [0, 6])
def test_what_is_done_again_is_shown_once(tmp_path: Path, start_step: int) -> None:
    for first, start in ((1, 0), (start_step + 1, start_step)):
        reporter = TensorBoardReporter(tmp_path, start)
        for step in range(first, 9):
            reporter.scalars(step, {"a": float(step)})
        reporter.close()
    assert curve(tmp_path, "a") == [(step, float(step)) for step in range(1, 9)]


def test_the_later_file_is_shown_also_if_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for clock, start, value in ((2e9, 0, 1.0), (1.9e9, 3, 2.0)):
        monkeypatch.setattr("lvae_torch.reporting.trackers.tensorboard.time.time", lambda clock=clock: clock)
        reporter = TensorBoardReporter(tmp_path, start)
        for step in range(start + 1, 6):
            reporter.scalars(step, {"a": value})
        reporter.close()
    assert curve(tmp_path, "a") == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0)]


def test_a_full_disk_is_told_by_the_folder(tmp_path: Path) -> None:
    reporter = TensorBoardReporter(tmp_path / "tensorboard")
    with full_disk(1000), pytest.raises(DataError, match=r"tensorboard: cannot be written \(File too large\)"):
        for step in range(100):
            reporter.scalars(step, {"a": 1.0})
    assert len(curve(tmp_path / "tensorboard", "a")) > 5, "what was written before can be read"
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="file: cannot be written"):
        TensorBoardReporter(tmp_path / "file")
