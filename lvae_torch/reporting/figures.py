"""Figures from plain numbers: curves, bars, heat maps, scatter plots. They need no screen and no global state."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lvae_torch.files import atomic_write
from lvae_torch.reporting.reporter import writing_to

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = tuple[np.ndarray, np.ndarray]
"""x and y, (n,) each; or times (t,) and the values of several units (t, units)."""
Groups = Mapping[str, Sequence[float]]

INK, GRID = "#333333", "#dddddd"
MOST_INSIDE = 6  # curves whose names fit into their plot
LONGEST_NAME = 24  # characters of a class's name
LEAST_KL = 1e-4  # nats, the bottom of the colour scale


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator["Figure"]:
    """Give a figure (size in inches) to draw on, then write it to ``path`` as a PNG."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), dpi=150, layout="constrained")
    yield drawing
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        drawing.savefig(file, format="png")


def draw_curves(path: Path, curves: Mapping[str, Curve], x_label: str, y_label: str, title: str) -> None:
    """Draw curves in one plot. The y axis is scaled without the first tenth of each curve, where training begins."""
    with figure(path, 6.4, 4.2) as drawing:
        axes = drawing.subplots()
        for k, (name, (x, y)) in enumerate(curves.items()):
            alone = "o" if len(x) == 1 else ""  # a line through one point is none
            style = ("-", "--", ":")[k % 3]
            axes.plot(x, y, label=name, linestyle=style, marker=alone, color=f"C{k}", linewidth=1.5)
        settled = [y[len(y) // 10 :] for _, y in curves.values() if len(y)]
        if settled:
            low, high = min(y.min() for y in settled), max(y.max() for y in settled)
            margin = 0.05 * (high - low) or 1.0
            axes.set_ylim(low - margin, high + margin)
        label_axes(axes, x_label, y_label, title)
        if len(curves) <= MOST_INSIDE:
            axes.legend(frameon=False)
        else:  # it would cover the curves
            drawing.set_figwidth(8.4)
            drawing.legend(frameon=False, fontsize=8, loc="outside right upper")


def draw_panels(path: Path, panels: Mapping[str, Mapping[str, Curve]], x_label: str, y_label: str) -> None:
    """Draw panels side by side with common axes; curves have few points, so these are marked.

    Where several points of a curve have the same x, as runs of several seeds, the line goes through their mean.
    """
    with figure(path, 3.2 * len(panels) + 1.2, 4.0) as drawing:
        row = np.atleast_1d(drawing.subplots(1, len(panels), sharex=True, sharey=True))
        # Colours in the order of the runs, as in the other figures of a comparison; the same in every panel.
        kinds = list(dict.fromkeys(kind for curves in panels.values() for kind in curves))
        for axes, (title, curves) in zip(row, panels.items(), strict=True):
            for kind, (x, y) in curves.items():
                colour, places = f"C{kinds.index(kind)}", np.unique(x)
                axes.plot(x, y, "o", color=colour, markersize=4)
                axes.plot(places, [y[x == at].mean() for at in places], label=kind, color=colour, linewidth=1.2)
            axes.xaxis.get_major_locator().set_params(integer=True)
            label_axes(axes, x_label, y_label if axes is row[0] else "", title)
        row[0].legend(frameon=False, fontsize=8)


def draw_bars(
    path: Path, groups: Mapping[str, Sequence[float]], labels: Sequence[str], y_label: str, title: str
) -> None:
    """Draw for each label one bar per group, with its value above it; what is next to nothing is drawn as 0."""
    with figure(path, max(4.8, 0.9 * len(labels), 0.5 * len(labels) * len(groups)), 4.0) as drawing:
        axes = drawing.subplots()
        width = 0.8 / len(groups)
        for k, (name, values) in enumerate(groups.items()):
            places = np.arange(len(labels)) + (k - (len(groups) - 1) / 2) * width
            heights = [0.0 if abs(value) <= 0.005 else value for value in values]  # a KL of -1e-7 is none, a NaN no 0
            bars = axes.bar(places, heights, width, label=name, color=f"C{k}")
            axes.bar_label(bars, [f"{height:.3g}" for height in heights], fontsize=7, padding=2)
        axes.set_xticks(np.arange(len(labels)), labels)
        label_axes(axes, "", y_label, title)
        if len(groups) > 1:
            axes.legend(frameon=False)


def draw_unit_history(path: Path, layers: Mapping[str, Curve], x_label: str, title: str) -> None:
    """Draw the log KL of each unit over time, one panel per layer, with units sorted by their last value.

    Args:
        layers: name -> (times (t,), mean KL (t, units)).
    """
    from matplotlib.colors import LogNorm

    with figure(path, 2.6 * len(layers) + 1.2, 3.8) as drawing:
        panels = np.atleast_1d(drawing.subplots(1, len(layers)))
        layers = {name: (times, np.nan_to_num(kl, nan=0.0, posinf=0.0)) for name, (times, kl) in layers.items()}
        most = max(float(kl.max()) for _, kl in layers.values())
        norm = LogNorm(LEAST_KL, max(most, 10 * LEAST_KL))
        picture: Any = None
        for axes, (name, (times, kl)) in zip(panels, layers.items(), strict=True):
            order = np.argsort(-kl[-1])
            edges = np.concatenate([[0.0], times])  # a column extends from the previous evaluation to its own
            picture = axes.pcolormesh(
                edges, np.arange(len(order) + 1), kl[:, order].T.clip(LEAST_KL), norm=norm, cmap="magma"
            )
            axes.invert_yaxis()
            axes.yaxis.get_major_locator().set_params(integer=True)
            axes.set_title(name, fontsize=9)
            axes.set_xlabel(x_label)
        panels[0].set_ylabel("unit, sorted")
        drawing.colorbar(picture, ax=list(panels), label="KL, nats", fraction=0.04)
        drawing.suptitle(title)


def draw_clouds(
    path: Path, clouds: Mapping[str, np.ndarray], classes: np.ndarray | None, title: str, names: Sequence[str] = ()
) -> None:
    """Draw points of the plane (n, 2), one panel per cloud, coloured by class if classes are known.

    Args:
        classes: the class of each point, (n,), counted from 0.
        names: of the classes, in order; they are told where there are at most 10.
    """
    few = classes is not None and classes.max() < 10
    colours: dict[str, Any] = {"color": INK}
    if classes is not None:
        top = 9.5 if few else classes.max()
        colours = {"c": classes, "cmap": "tab10" if few else "nipy_spectral", "vmin": -0.5, "vmax": top}
    with figure(path, 2.8 * len(clouds) + 0.6, 3.2) as drawing:
        panels = np.atleast_1d(drawing.subplots(1, len(clouds)))
        for axes, (name, points) in zip(panels, clouds.items(), strict=True):
            shown = axes.scatter(*points.T, s=3, linewidths=0, **colours)
            axes.set_title(name, fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
        if few and classes is not None:
            bar = drawing.colorbar(shown, ax=list(panels), label="class", fraction=0.03)
            bar.set_ticks(list(range(len(names))), labels=[name[:LONGEST_NAME] for name in names])
            bar.ax.set_ylim(-0.5, classes.max() + 0.5)
        drawing.suptitle(title)


def draw_points(path: Path, clouds: Mapping[str, np.ndarray]) -> None:
    """Draw points of the plane (n, 2), one panel per cloud, with common axes of one scale."""
    with figure(path, 3.2 * len(clouds) + 0.6, 3.4) as drawing:
        drawing.set_layout_engine("compressed")  # the other one cuts words of axes with one scale
        panels = np.atleast_1d(drawing.subplots(1, len(clouds), sharex=True, sharey=True))
        for axes, (name, points) in zip(panels, clouds.items(), strict=True):
            axes.scatter(*points.T, s=3, linewidths=0, color=INK)
            axes.set_aspect("equal")
            label_axes(axes, "", "", name)
        # Square panels, so that words have room beside the thinnest cloud.
        limits = panels[0].get_xlim(), panels[0].get_ylim()
        half = max(high - low for low, high in limits) / 2
        x, y = (((low + high) / 2 - half, (low + high) / 2 + half) for low, high in limits)
        panels[0].set(xlim=x, ylim=y)


def label_axes(axes: Any, x_label: str, y_label: str, title: str) -> None:
    """Give a plot its words and the look that all of them have."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=10)
    axes.grid(color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
