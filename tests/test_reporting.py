"""What people and machines see of a run: each file is read back by its own reader, and the numbers must be there."""

import io
import json
import re
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lvae_torch.errors import DataError
from lvae_torch.reporting import console
from lvae_torch.reporting.console import ConsoleReporter, table
from lvae_torch.reporting.grids import image_grid, pair_grid, save_png, to_uint8
from lvae_torch.reporting.history import History
from lvae_torch.reporting.jsonl import JsonlReporter
from lvae_torch.reporting.reporter import Reporter, Reporters
from lvae_torch.reporting.tensorboard import TensorBoardReporter

GRID = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond ``n_bytes``."""
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)


# Several as one


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.calls.append(("scalars", step, dict(values)))

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        self.calls.append(("image", step, tag, grid.shape))

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        self.calls.append(("histogram", step, tag, values.tolist()))

    def close(self) -> None:
        self.calls.append(("close",))


class Unwritable(Recorder):
    def close(self) -> None:
        raise DataError("full")


def report_all(reporter: Reporter) -> None:
    reporter.scalars(3, {"train/loss": 1.5})
    reporter.image(3, "samples", GRID)
    reporter.histogram(3, "val/kl_units/00", np.array([0.5, 2.0]))


def test_each_reporter_is_told_everything() -> None:
    recorders = [Recorder(), Recorder()]
    reporters = Reporters(recorders)
    report_all(reporters)
    reporters.close()
    for recorder in recorders:
        assert recorder.calls == [
            ("scalars", 3, {"train/loss": 1.5}),
            ("image", 3, "samples", GRID.shape),
            ("histogram", 3, "val/kl_units/00", [0.5, 2.0]),
            ("close",),
        ]


def test_each_reporter_is_closed_even_if_another_cannot_be() -> None:
    recorders = [Recorder(), Recorder()]
    with pytest.raises(DataError, match="full"):
        Reporters([recorders[0], Unwritable(), recorders[1]]).close()
    assert [recorder.calls for recorder in recorders] == [[("close",)], [("close",)]]


def test_every_reporter_takes_everything(tmp_path: Path) -> None:
    reporters = Reporters([TensorBoardReporter(tmp_path), JsonlReporter(tmp_path / "m.jsonl"), ConsoleReporter(9)])
    report_all(reporters)
    reporters.close()
    reporters.close()  # once more does no harm


# metrics.jsonl


def records(path: Path) -> list[dict[str, float | None]]:
    """Without the times."""

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert all(list(line)[:2] == ["step", "time"] and line["time"] > 1.7e9 for line in lines)
    return [{key: value for key, value in line.items() if key not in ("time", "crc32")} for line in lines]


def report_steps(path: Path, first: int, last: int, start_step: int = 0) -> None:
    reporter = JsonlReporter(path, start_step)
    for step in range(first, last + 1):
        reporter.scalars(step, {"train/loss": step / 3})
        if step % 2 == 0:
            reporter.scalars(step, {"val/nelbo": float(step)})
    reporter.close()


def test_each_line_is_json_and_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reporter = JsonlReporter(path)
    reporter.scalars(10, {"a": 0.1, "b": np.float32(0.5), "c": 7})
    assert records(path) == [{"step": 10, "a": 0.1, "b": 0.5, "c": 7.0}]
    reporter.scalars(20, {"a": float("nan"), "b": float("inf"), "c": -float("inf")})
    assert records(path)[1] == {"step": 20, "a": None, "b": None, "c": None}


@pytest.mark.parametrize("torn", [b"", b'{"step": 8, "ti', b'{"step": 6, "time": 1.8e9}', b"\0" * 50])
def test_a_resumed_file_is_that_of_an_uninterrupted_run(tmp_path: Path, torn: bytes) -> None:
    whole, resumed = tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"
    report_steps(whole, 1, 10)
    report_steps(resumed, 1, 7)
    with resumed.open("ab") as file:
        file.write(torn)
    report_steps(resumed, 7, 10, start_step=6)  # the last checkpoint was of step 6
    assert records(resumed) == records(whole)


def test_later_steps_go_where_an_earlier_one_was_told_again_behind_them(tmp_path: Path) -> None:
    """As a run does whose best weights were evaluated at its end."""
    path = tmp_path / "metrics.jsonl"
    report_steps(path, 1, 7)
    JsonlReporter(path, start_step=7).scalars(3, {"val/nelbo": 1.0})
    JsonlReporter(path, start_step=4)
    assert [record["step"] for record in records(path)] == [1, 2, 2, 3, 4, 4, 3]


def test_lines_of_an_older_version_without_checksums_stay(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    old = b"".join(b'{"step": %d, "time": 1.8e9, "train/loss": %d}\n' % (step, step) for step in range(1, 7))
    path.write_bytes(old)
    report_steps(path, 7, 8, start_step=6)
    assert path.read_bytes().startswith(old)
    JsonlReporter(path, 8)
    assert [record["step"] for record in records(path)] == [1, 2, 3, 4, 5, 6, 7, 8, 8]


def test_a_start_from_nothing_drops_what_a_lost_start_wrote(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    report_steps(path, 1, 7)
    JsonlReporter(path)
    assert path.read_text() == ""


CHANGED = b'{"step": 3, "time": 1.8e9, "train/loss": 1.0, "crc32": 2}'


@pytest.mark.parametrize("damage", [b"\0\0\0", b"\xff\xfe", b"", b"[1]", b'{"step": 2, "crc32": 1}', CHANGED])
def test_damage_in_the_middle_is_refused_by_name(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    report_steps(path, 1, 6)
    lines = path.read_bytes().split(b"\n")
    lines[3] = damage
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"metrics\.jsonl: line 4 is damaged"):
        JsonlReporter(path, 6)
    assert path.read_bytes() == b"\n".join(lines)


def test_a_full_disk_stops_the_log_and_the_rest_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    report_steps(path, 1, 4)
    before = records(path)
    with (
        full_disk(path.stat().st_size + 20),
        pytest.raises(DataError, match=r"metrics\.jsonl: cannot be written \(File"),
    ):
        report_steps(path, 5, 5, start_step=4)
    report_steps(path, 5, 5, start_step=4)
    assert records(path) == [*before, {"step": 5, "train/loss": 5 / 3}]


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
        monkeypatch.setattr("lvae_torch.reporting.tensorboard.time.time", lambda clock=clock: clock)
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


# The console

TRAINED = {"train/nelbo": 90.126, "train/nll": 70.0, "train/kl": 20.126, "train/bpd": 0.16584, "train/loss": 0.1}
EVALUATED = {"val/nelbo": 88.5, "val/bpd": 0.1629}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What ``time.monotonic`` says: its only entry."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    yield now


def test_a_log_gets_one_plain_line_each_time(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    reporter = ConsoleReporter(12_000, start_step=1000)
    clock[0] += 60  # 1000 steps in a minute: 10,000 more take ten
    reporter.scalars(2000, {**TRAINED, "speed/images_per_second": 1066.7})
    reporter.scalars(2000, EVALUATED)
    reporter.image(2000, "samples", GRID)
    reporter.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "step 2,000/12,000 (17%)  -ELBO 90.13  NLL 70.00  KL 20.13  bits/dim 0.1658  1,067 images/s  0:10:00 to go",
        "step 2,000: validation -ELBO 88.50  bits/dim 0.1629",
    ]


def test_the_time_to_go_counts_hours_and_ends_at_zero(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    reporter = ConsoleReporter(100)
    clock[0] += 3725
    for step in (50, 100):
        reporter.scalars(step, {})
    assert re.findall(r"\S+ to go", capsys.readouterr().err) == ["1:02:05 to go", "0:00:00 to go"]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    reporter = ConsoleReporter(1000, start_step=400)
    reporter.scalars(500, TRAINED)
    reporter.scalars(500, EVALUATED)
    reporter.scalars(1000, TRAINED)
    reporter.close()
    shown = terminal.getvalue()
    assert " 40%" in shown.split("\r")[1] and "400/1000" in shown
    assert "1000/1000" in shown and "-ELBO 90.13  NLL 70.00  KL 20.13  bits/dim 0.1658" in shown
    assert "step 500: validation -ELBO 88.50  bits/dim 0.1629\n" in shown


def test_a_table_lines_up() -> None:
    assert table("mnist: finished", [("steps", "1,000"), ("-ELBO", "88.50 nats")]).splitlines() == [
        "mnist: finished",
        "-------------------",
        "  steps  1,000",
        "  -ELBO  88.50 nats",
    ]
    assert table("empty", []) == "empty\n-----"


# Pictures


def constant(*levels: int, size: int = 60) -> torch.Tensor:
    """One grey image for each level of 255, (N, 1, size, size)."""
    return (torch.tensor(levels) / 255)[:, None, None, None].expand(-1, 1, size, size)


def tile(grid: np.ndarray, row: int, column: int, size: int = 60) -> np.ndarray:
    y, x = 2 + row * (size + 2), 2 + column * (size + 2)
    return grid[y : y + size, x : x + size]


def test_images_stand_row_by_row_between_lines() -> None:
    grid = image_grid(constant(10, 20, 30, 40, 50), columns=3)
    assert grid.shape == (2 + 2 * 62, 2 + 3 * 62, 3) and grid.dtype == np.uint8
    rest = grid.copy()
    for i, level in enumerate((10, 20, 30, 40, 50)):
        assert (tile(grid, i // 3, i % 3) == level).all()
        tile(rest, i // 3, i % 3)[:] = 255
    assert (rest == 255).all(), "lines and the empty place are white beside dark images"


@pytest.mark.parametrize(("level", "line"), [(0, 255), (127, 255), (128, 0), (255, 0)])
def test_lines_stand_out(level: int, line: int) -> None:
    images = constant(level).repeat(1, 3, 1, 1)
    images[:, :, 10:50, 10:50] = 1 - level / 255  # what is inside does not matter
    grid = image_grid(images, columns=1)
    assert (grid[:2] == line).all() and (grid[:, -2:] == line).all()


def test_few_images_make_a_small_grid() -> None:
    assert image_grid(constant(1, 2), columns=10).shape == (64, 2 + 2 * 62, 3)


@pytest.mark.parametrize(("size", "factor"), [(8, 7), (28, 2), (32, 2), (55, 2), (56, 1), (64, 1)])
def test_small_images_are_enlarged_without_blurring(size: int, factor: int) -> None:
    image = torch.rand(1, 3, size, size)
    grid = image_grid(image, columns=1)[2:-2, 2:-2]
    expected = np.kron(to_uint8(image)[0], np.ones((factor, factor, 1), np.uint8))
    assert np.array_equal(grid, expected)


def test_levels_come_back_exactly_and_others_are_rounded() -> None:
    levels = np.arange(256).reshape(1, 1, 16, 16)
    for images in (torch.from_numpy(levels) / 255, (levels / 255).astype(np.float32)):
        assert np.array_equal(to_uint8(images), np.broadcast_to(levels.reshape(1, 16, 16, 1), (1, 16, 16, 3)))
    odd = torch.tensor([-0.5, 0.0019, 0.0021, 1.7, float("nan"), float("inf")]).reshape(1, 1, 1, 6)
    assert to_uint8(odd)[0, 0, :, 0].tolist() == [0, 0, 1, 255, 0, 255]


def test_colours_keep_their_order_and_grey_is_grey() -> None:
    pixel = torch.tensor([1, 2, 3, 4]) / 255
    for n_channels, seen in ((1, [1, 1, 1]), (2, [1, 1, 1]), (3, [1, 2, 3]), (4, [1, 2, 3])):
        assert to_uint8(pixel[:n_channels].reshape(1, -1, 1, 1))[0, 0, 0].tolist() == seen


def test_a_reconstruction_stands_beside_its_image() -> None:
    x, reconstruction = constant(10, 20, 30), constant(11, 21, 31)
    for pair in ((x, reconstruction), (x.numpy(), reconstruction.numpy())):
        grid = pair_grid(*pair, pairs_per_row=2)
        seen = [[tile(grid, row, column)[0, 0, 0] for column in range(4)] for row in range(2)]
        assert seen == [[10, 11, 20, 21], [30, 31, 255, 255]]


def test_a_png_shows_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "new" / "grid.png"
    save_png(path, GRID)
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), GRID)
    assert [file.name for file in path.parent.iterdir()] == ["grid.png"]


def test_a_png_is_whole_or_not_there(tmp_path: Path) -> None:
    path, noise = tmp_path / "grid.png", np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    save_png(path, GRID)
    with full_disk(1000), pytest.raises(DataError, match=r"grid\.png: cannot be written \(File too large\)"):
        save_png(path, noise)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), GRID)
    with pytest.raises(DataError, match=r"grid\.png/below: cannot be written \(Not a directory"):
        save_png(path / "below" / "a.png", GRID)


# Read back


def test_a_history_is_what_was_reported(tmp_path: Path) -> None:
    reporter = JsonlReporter(tmp_path / "m.jsonl")
    for step in (2, 4, 4):
        reporter.scalars(step, {"train/nelbo": 100.0 - step, "train/kl": float("inf")})
        reporter.histogram(step, "val/kl_units/00", np.array([0.123456, np.nan]) * step)
    reporter.histogram(5, "val/many", np.zeros(5000))
    with open(tmp_path / "m.jsonl", "a") as file:
        file.write('{"step": 6, "train/nel')  # as a run in progress leaves it
    history = History.read(tmp_path / "m.jsonl")
    steps, values = history.curve("train/nelbo")
    assert (steps.tolist(), values.tolist()) == ([2, 4], [98, 96])
    assert len(history.curve("train/kl")[0]) == len(history.curve("val/many")[0]) == 0
    assert history.last("train/") == {"step": 4, "nelbo": 96, "kl": None}
    assert history.last("val/kl_units/") == {"step": 4, "00": [0.4938, None]}
    assert history.last("other/") == {}


@pytest.mark.parametrize("text", [None, b"{\n", b"\xff\n"])
def test_a_history_that_is_none_is_named(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "m.jsonl").write_bytes(text)
    with pytest.raises(DataError, match=r"m\.jsonl: cannot be read"):
        History.read(tmp_path / "m.jsonl")
