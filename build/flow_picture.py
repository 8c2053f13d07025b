"""``python -m build.flow_picture > docs/pictures/flow.svg``: the README's picture, from raw files to results."""

from collections.abc import Iterator
from itertools import pairwise

BOX_HEIGHT, TOP, WIDTH = 64, 46, 1010
INK, PAPER, LINE, ACCENT = "#1f2933", "#ffffff", "#9aa5b1", "#2f6f8f"

STAGES = (
    ("upstream, mirror\nor your folder", "", 0, 150),
    ("dataset_dumps/\nNAME/", "lvae data", 215, 150),
    ("runs/NAME/\ncheckpoints/", "lvae train", 430, 150),
    ("runs/NAME/\nsynthesis/MODE/", "lvae synthesize", 645, 150),
    ("pictures, numbers,\nlatents", "", 860, 150),
)
"""Text of a box, the command that leads into it, its left edge and width."""
BELOW = (
    ("a bundle: three files", "lvae export", 415, 180),
    ("notebooks: load_run()", "", 645, 180),
)


def box(text: str, x: int, y: int, width: int, height: int) -> Iterator[str]:
    frame = f'x="{x}" y="{y}" width="{width}" height="{height}" rx="8"'
    yield f'<rect {frame} fill="{PAPER}" stroke="{ACCENT}" stroke-width="1.5"/>'
    lines = text.split("\n")
    first = y + height / 2 - 9 * (len(lines) - 1) + 5
    for i, line in enumerate(lines):
        yield f'<text x="{x + width / 2}" y="{first + 18 * i:.0f}" text-anchor="middle">{line}</text>'


def arrow(x1: int, y1: int, x2: int, y2: int, text: str = "") -> Iterator[str]:
    end_x, end_y = x2 - 8 * (x2 > x1), y2 - 8 * (y2 > y1)  # the head is drawn beyond the end
    ends = f'x1="{x1}" y1="{y1}" x2="{end_x}" y2="{end_y}"'
    yield f'<line {ends} stroke="{LINE}" stroke-width="2" marker-end="url(#head)"/>'
    if text and y1 == y2:
        yield f'<text x="{(x1 + x2) / 2}" y="{y1 - 44}" text-anchor="middle" class="command">{text}</text>'
    elif text:
        yield f'<text x="{x1 + 12}" y="{(y1 + y2) / 2 + 5}" class="command">{text}</text>'


def picture() -> str:
    """The SVG text."""
    middle, lower = TOP + BOX_HEIGHT // 2, TOP + BOX_HEIGHT + 56
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 4} {lower + 46}" width="{WIDTH + 4}" '
        f'font-family="sans-serif" font-size="14" fill="{INK}" role="img">',
        "<title>Raw files become dumps, dumps train runs, runs are used, exported and loaded</title>",
        f"<style>.command {{ font-family: monospace; fill: {ACCENT}; }}</style>",
        f'<rect width="{WIDTH + 4}" height="{lower + 46}" fill="#f7f9fb"/>',
        f'<defs><marker id="head" orient="auto" markerWidth="6" markerHeight="6" refX="2" refY="3">'
        f'<path d="M0,0 L6,3 L0,6 z" fill="{LINE}"/></marker></defs>',
        '<g transform="translate(2 0)">',
    ]
    for (_, _, x, width), (_, command, following, _) in pairwise(STAGES):
        parts += arrow(x + width, middle, following, middle, command)
    for text, _, x, width in STAGES:
        parts += box(text, x, TOP, width, BOX_HEIGHT)
    parts += arrow(505, TOP + BOX_HEIGHT, 505, lower, "lvae export")
    parts += arrow(595, lower + 20, 645, lower + 20)
    for text, _, x, width in BELOW:
        parts += box(text, x, lower, width, 40)
    return "\n".join([*parts, "</g></svg>"]) + "\n"


if __name__ == "__main__":
    print(picture(), end="")
