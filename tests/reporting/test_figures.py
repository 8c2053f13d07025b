"""Figures: one colour a system; and in those of points no word lies on another or is cut."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lvae_torch.reporting import figures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """What is drawn, with the places that its words take."""
    drawings = list[Figure]()
    as_is = figures.figure

    @contextmanager
    def kept(path: Path, width: float, height: float) -> Iterator[Figure]:
        with as_is(path, width, height) as drawing:
            yield drawing
        drawings.append(drawing)

    monkeypatch.setattr(figures, "figure", kept)
    return drawings


@pytest.mark.parametrize("stds", [(1, 5), (5, 1), (1, 1), (0.1, 5), (5, 0.1)], ids=str)
def test_labels_of_thin_clouds_do_not_touch(drawn: list[Figure], tmp_path: Path, stds: tuple[float, float]) -> None:
    cloud = np.random.default_rng(0).normal(size=(1000, 2)) * stds
    figures.draw_points(tmp_path / "points.png", {"data": cloud, "samples": cloud, "means": cloud / 10})
    (drawing,) = drawn
    canvas = FigureCanvasAgg(drawing)
    canvas.draw()
    for axes in drawing.axes:
        for axis, side in ((axes.xaxis, "x"), (axes.yaxis, "y")):
            boxes = [tick.label1.get_window_extent() for tick in axis.get_major_ticks() if tick.label1.get_visible()]
            spans = sorted((getattr(box, f"{side}0"), getattr(box, f"{side}1")) for box in boxes if box.width)
            assert all(one[1] < other[0] for one, other in pairwise(spans)), (stds, side, spans)
    titles = [axes.title.get_window_extent() for axes in drawing.axes]
    assert all(one.x1 < other.x0 for one, other in pairwise(titles)), stds
    words, page = [axes.get_tightbbox() for axes in drawing.axes], drawing.bbox
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in words)
    assert (tmp_path / "points.png").stat().st_size


def test_points_keep_one_scale_and_are_all_shown(drawn: list[Figure], tmp_path: Path) -> None:
    cloud = np.array([[1.0, 0.0], [3.0, 40.0]])
    figures.draw_points(tmp_path / "points.png", {"data": cloud, "samples": 2 * cloud})
    for axes in drawn[0].axes:
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert right - left == pytest.approx(top - bottom) and axes.get_aspect() == 1
        assert left < 1 < 6 < right and bottom < 0 < 80 < top


def test_a_system_has_one_colour_in_all_figures(drawn: list[Figure], tmp_path: Path) -> None:
    """The first that is named has the first colour, whatever it is called, and also where others have no point."""
    curve = (np.array([1, 2]), np.array([3.0, 4.0]))
    figures.draw_panels(tmp_path / "a.png", {"all": {"z": curve, "a": curve}, "one": {"a": curve}}, "", "")
    figures.draw_bars(tmp_path / "b.png", {"z": [1.0], "a": [2.0]}, ["z_1"], "", "")
    every, one = drawn[0].axes
    colours = {line.get_label(): line.get_color() for line in every.get_lines() if line.get_label() in ("z", "a")}
    assert colours == {"z": "C0", "a": "C1"}
    assert {line.get_color() for line in one.get_lines()} == {"C1"}
    assert [to_hex(bars[0].get_facecolor()) for bars in drawn[1].axes[0].containers] == [to_hex("C0"), to_hex("C1")]


def test_a_curve_of_one_point_is_seen(drawn: list[Figure], tmp_path: Path) -> None:
    curves = {"train": (np.arange(9), np.arange(9.0)), "test": (np.array([8]), np.array([7.0]))}
    figures.draw_curves(tmp_path / "curves.png", curves, "steps", "nats", "one evaluation")
    many, one = drawn[-1].axes[0].get_lines()
    assert (many.get_marker(), one.get_marker()) == ("", "o")
