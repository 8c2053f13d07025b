"""Charts as inline SVG, drawn from plain numbers. Their colours are those of the page, light or dark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count

import numpy as np

from lvae_torch.reporting.history import History
from lvae_torch.reporting.ticks import ticks

WIDTH, HEIGHT = 480.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 8.0, 8.0, 34.0
MOST_POINTS = 400
N_COLOURS = 6  # of the style sheet: --c0 and so on
MOST_NAMED = 12  # layers; of more, the legend names the first and the last
_numbers = count()


@dataclass(frozen=True)
class Line:
    """A curve: x and y, (n,) each."""

    label: str
    x: np.ndarray
    y: np.ndarray
    colour: int = 0
    is_dashed: bool = False

    @classmethod
    def of(cls, history: History, key: str, label: str, colour: int = 0, is_dashed: bool = False) -> "Line":
        """A curve of a run; at most ``MOST_POINTS`` of it, means over as many reports as it takes."""
        return cls(label, *_thinned(*history.curve(key)), colour, is_dashed)

    @classmethod
    def of_layers(cls, history: History, labels: Mapping[str, str]) -> list["Line"]:
        """Curves of several keys, with their labels, at those steps at which all of them are finite."""
        curves = {key: dict(zip(*history.curve(key), strict=True)) for key in labels}
        all_steps = set.intersection(*map(set, curves.values())) if curves else set()
        steps = sorted(s for s in all_steps if all(np.isfinite(curve[s]) for curve in curves.values()))
        values = {key: np.array([curve[step] for step in steps]) for key, curve in curves.items()}
        return [cls(label, *_thinned(np.array(steps), values[key])) for key, label in labels.items()]


@dataclass(frozen=True)
class Scale:
    """The values of an axis, and where on the picture they lie."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: np.ndarray | float) -> np.ndarray:
        return self.start + (np.asarray(value, dtype=float) - self.low) / (self.high - self.low) * (
            self.end - self.start
        )

    def ticks(self) -> list[float]:
        """Round numbers in the range."""
        return ticks(self.low, self.high, about=4)


def line_chart(title: str, lines: Sequence[Line], y_label: str, x_label: str = "steps") -> str:
    """Curves in one plot; "" if there is no point. The y axis leaves out where training begins, a tenth of a curve."""
    lines = [line for line in lines if len(line.x)]
    if not lines:
        return ""
    settled = np.concatenate([line.y[len(line.y) // 10 :] for line in lines])
    axes = _axes(max(float(line.x.max()) for line in lines), float(settled.min()), float(settled.max()), 0.06)
    drawn = [_path(axes, line) for line in lines]
    legend = "".join(
        f'<li><span class="key{" dashed" if line.is_dashed else ""}" style="color:var(--c{line.colour % N_COLOURS})">'
        f"</span>{escape(line.label)}</li>"
        for line in lines
    )
    return _figure(title, axes, drawn, x_label, y_label, legend if len(lines) > 1 else "")


def layers_chart(title: str, layers: Sequence[Line], y_label: str, x_label: str = "steps") -> str:
    """Layers stacked on one another, the top layer lowest; "" if there is no point."""
    if not layers or not len(layers[0].x):
        return ""
    x = layers[0].x
    sums = np.cumsum([np.zeros(len(x)), *(layer.y for layer in layers)], axis=0)  # (L + 1, n)
    axes = _axes(float(x.max()), 0.0, float(sums.max()), 0.03)
    drawn = []
    for i, layer in enumerate(layers):
        outline = np.concatenate([axes[0].at(x), axes[0].at(x[::-1])])
        values = np.concatenate([axes[1].at(sums[i + 1]), axes[1].at(sums[i][::-1])])
        drawn.append(
            f'<polygon fill="{layer_colour(i, len(layers))}" points="{_points(outline, values)}">'
            f"<title>{escape(layer.label)}: {layer.y[-1]:.3g} at the end</title></polygon>"
        )
    named = range(len(layers)) if len(layers) <= MOST_NAMED else (0, len(layers) - 1)
    legend = "".join(
        f'<li><span class="patch" style="background:{layer_colour(i, len(layers))}"></span>'
        f"{escape(layers[i].label)}</li>"
        for i in named
    )
    return _figure(title, axes, drawn, x_label, y_label, legend)


def layer_colour(i: int, n_layers: int) -> str:
    """From blue at the top to orange at the bottom, of one lightness: it can be read on light and on dark."""
    hue = 225 + 165 * i / max(1, n_layers - 1)  # by way of violet and red
    return f"hsl({hue % 360:.0f} 62% 58%)"


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(y.astype(float)) if len(y) else np.zeros(0, dtype=bool)
    x, y = x[known].astype(float), y[known].astype(float)
    if len(x) <= MOST_POINTS:
        return x, y
    pieces = np.array_split(np.arange(len(x)), MOST_POINTS)
    return np.array([x[piece[-1]] for piece in pieces]), np.array([y[piece].mean() for piece in pieces])


def _axes(last_x: float, low: float, high: float, margin: float) -> tuple[Scale, Scale]:
    room = margin * (high - low) or max(abs(high), 1.0) * 0.05
    bottom = low - room if low else 0.0
    return (
        Scale(0.0, max(last_x, 1.0) * 1.02, LEFT, WIDTH - RIGHT),
        Scale(bottom, high + room, HEIGHT - BOTTOM, TOP),
    )


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _path(axes: tuple[Scale, Scale], line: Line) -> str:
    x, y = axes[0].at(line.x), axes[1].at(line.y).clip(-HEIGHT, 2 * HEIGHT)
    colour = f"var(--c{line.colour % N_COLOURS})"
    told = f"<title>{escape(line.label)}: {line.y[-1]:.5g} at the end</title>"
    if len(x) == 1:
        return f'<circle cx="{x[0]:.1f}" cy="{y[0]:.1f}" r="4.5" fill="{colour}">{told}</circle>'
    dashes = ' stroke-dasharray="5 4"' if line.is_dashed else ""
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour}"/>' for a, b in zip(x, y, strict=True))
    return (
        f'<g><polyline fill="none" stroke="{colour}" stroke-width="1.8"{dashes} points="{_points(x, y)}">{told}'
        f"</polyline>{dots if len(x) <= 40 else ''}</g>"
    )


def _figure(
    title: str, axes: tuple[Scale, Scale], drawn: Sequence[str], x_label: str, y_label: str, legend: str
) -> str:
    horizontal, vertical = axes
    inside, foot = f"inside{next(_numbers)}", HEIGHT - BOTTOM
    grid = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_tick(value, vertical)}</text>'
        for value in vertical.ticks()
        for y in [float(vertical.at(value))]
    ]
    grid += [
        f'<text x="{x:.1f}" y="{foot + 16}" text-anchor="{"middle" if x < WIDTH - 30 else "end"}">'
        f"{_tick(value, horizontal)}</text>"
        for value in horizontal.ticks()
        for x in [float(horizontal.at(value))]
    ]
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return (
        f'<figure class="chart"><figcaption>{escape(title)}<small>{escape(y_label)}</small></figcaption>'
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(f"{title}, {y_label}")}">'
        f'<clipPath id="{inside}"><rect x="{LEFT}" y="{TOP}" width="{width}" height="{height}"/></clipPath>'
        f'{"".join(grid)}<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{foot}" y2="{foot}"/>'
        f'<g clip-path="url(#{inside})">{"".join(drawn)}</g>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">{escape(x_label)}</text></svg>'
        f"{f'<ul class=legend>{legend}</ul>' if legend else ''}</figure>"
    )


def _tick(value: float, scale: Scale) -> str:
    most = max(abs(scale.low), abs(scale.high))
    if value == 0:
        return "0"
    if most >= 1e6:
        return f"{value / 1e6:g}M"
    if most >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:.0e}".replace("e-0", "e-") if most < 1e-3 else f"{value:.6g}"
