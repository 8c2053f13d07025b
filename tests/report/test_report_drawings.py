"""What a report draws: curves true to their numbers, and pictures that are what they say they are."""

import re

import numpy as np
import pytest
import small
import torch

from lvae_torch.data.labelled import Labelled
from lvae_torch.report.charts import Line, Scale, layers_chart, line_chart
from lvae_torch.report.pictures import Painter
from lvae_torch.reporting.history import History


def test_a_curve_lies_where_its_numbers_are() -> None:
    x, y = np.array([1.0, 2.0, 4.0]), np.array([3.0, 7.0, 5.0])
    drawn = line_chart("t", [Line("a & b", x, y)], "unit")
    points = np.array([list(map(float, p.split(","))) for p in re.search(r'points="([^"]+)"', drawn)[1].split()])  # type: ignore[index]
    labels = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(?:middle|end)">([\d.]+)</text>', drawn)
    heights = {float(value): float(at) - 4 for left, at, value in labels if float(left) < 50}
    assert len(heights) >= 2
    (low, at_low), *_, (high, at_high) = sorted(heights.items())
    read = low + (points[:, 1] - at_low) / (at_high - at_low) * (high - low)
    assert read == pytest.approx(y, abs=0.05)
    assert np.diff(points[:, 0]) == pytest.approx(
        [(points[2, 0] - points[0, 0]) / 3, 2 * (points[2, 0] - points[0, 0]) / 3], abs=0.2
    )


def test_layers_are_stacked_to_their_sum() -> None:
    x = np.array([0.0, 10.0])
    layers = [Line("layer 0", x, np.array([1.0, 2.0])), Line("layer 1", x, np.array([3.0, 6.0]))]
    polygons = re.findall(r'<polygon[^>]*points="([^"]+)"', layers_chart("t", layers, "nats"))
    first, second = (np.array([list(map(float, p.split(","))) for p in polygon.split()]) for polygon in polygons)
    assert first[:2, 1] == pytest.approx(second[:1:-1, 1]), "the second begins where the first ends"
    zero, top = first[2, 1], second[1, 1]
    assert (zero - first[1, 1]) / (zero - top) == pytest.approx(2 / 8, abs=0.01)


@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_a_row_of_the_layer_inspection_shares_the_layers_above(at_once: int) -> None:
    """Also where it takes several passes; its own layer is drawn anew for each image."""
    model, passes = small.model(z_channels=(2, 3), downsample=(1, 1)), []
    model.register_forward_hook(lambda module, given, out: passes.append([latent.z for latent in out.latents]))
    painter = Painter(model.eval(), None, 5, torch.device("cpu"), at_once)
    pictures = [picture for picture in painter.pictures() if picture.group == "Layer inspection"]
    assert len(pictures) == 2
    columns = max(2, painter._columns // 2)
    top, own = (torch.cat([z[i] for z in passes]).flatten(1) for i in (0, 1))
    of_layer_1 = [z[-(columns**2) :].unflatten(0, (columns, columns)) for z in (top, own)]
    assert (of_layer_1[0] == of_layer_1[0][:, :1]).all(), "in a row, the layer above is shared"
    assert len(of_layer_1[0][:, 0].unique(dim=0)) == columns, "each row has its own"
    assert len(of_layer_1[1].flatten(0, 1).unique(dim=0)) == columns**2


def test_each_part_of_the_reconstructions_has_its_own_noise() -> None:
    model, passes = small.model().eval(), []
    model.register_forward_hook(lambda module, given, out: passes.append(out.latents[0].z))
    x = Labelled(torch.zeros(6, *small.IMAGE_SHAPE))
    with torch.no_grad():
        next(Painter(model, x, 5, torch.device("cpu"), at_once=2)._reconstructions())
    z = torch.cat(passes)
    assert len(z.flatten(1).unique(dim=0)) == len(z), "images that are alike are drawn differently"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (86.2, 97.9), (-3, 1e6), (1e-5, 3e-5), (5, 5.001)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    ticks = Scale(low, high, 0, 1).ticks()
    assert 2 <= len(ticks) <= 6 and all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert np.diff(ticks) == pytest.approx(np.diff(ticks)[0])


def test_a_curve_without_a_number_is_no_curve() -> None:
    history = History(({"step": 1, "a": None}, {"step": 2, "a": float("nan")}))
    assert line_chart("t", [Line.of(history, "a", ""), Line.of(history, "b", "")], "") == ""
