"""Which cfg trains on which cards, as the program estimates it: the table of docs/gpu.md.

    python -m benchmarks.cards [--write] [CFG ...]

All cfgs of egs/ take about ten minutes of a core. ``--write`` puts the table between its marks in docs/gpu.md.
"""

import argparse
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from lvae_torch.distributed.memory import GIB
from lvae_torch.hparams import load
from lvae_torch.info import cards_for
from lvae_torch.training.on_cards import Cards, Fit

SIZES = (24, 40, 80, 141)
"""GB of the cards, as they are sold; each has about as many GiB."""
NUMBERS = (1, 2, 8)
CLASSES = 10
"""Of a class-conditional model: its dataset's dump is not asked."""
PAGE = Path(__file__).resolve().parents[1] / "docs" / "gpu.md"
BEGIN, END = "<!-- python -m benchmarks.cards --write -->\n", "<!-- end of the cards -->\n"
SHORT = {"train.activation_checkpointing": "checkpointing", "train.precision": "", "val.batch_size": "[val] batch_size"}
HEAD = ["cfg", "batch", "cards", *(f"{size} GB" for size in SIZES)]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("cfgs", nargs="*", type=Path, metavar="CFG")
    arguments.add_argument("--write", action="store_true", help="write the table into docs/gpu.md")
    options = arguments.parse_args()
    lines = []
    for line in table(options.cfgs or all_cfgs()):
        lines.append(line)
        print(line, flush=True)
    if options.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2], encoding="utf-8")


def all_cfgs() -> list[Path]:
    """All cfgs of egs/, but for those that runs keep."""
    return sorted(path for path in Path("egs").rglob("*.cfg") if path.name != "hparams.cfg")


def table(cfgs: Iterable[Path]) -> Iterator[str]:
    """The lines of a table in Markdown; neighbours in a folder with the same cells share a row."""
    yield _line(HEAD)
    yield _line(["---"] * len(HEAD))
    rows = ((cfg, cells) for cfg in cfgs for cells in rows_of(cfg))
    for (_, cells), same in groupby(rows, key=lambda row: (row[0].parent, row[1])):
        names = [cfg.stem for cfg, _ in same]
        yield _line([f"`{names[0]}`" + (f" to `{names[-1]}`" if len(names) > 1 else ""), *cells])


def rows_of(cfg: Path) -> list[list[str]]:
    """Batch size, cards, and a cell for each size of card: a row for each number of cards, or one where all fit."""
    settings = load(cfg, ["data.dumps=nowhere"])
    cards = cards_for(settings, 1, CLASSES if settings.model.is_conditional else 0)
    rows = []
    for n_cards in NUMBERS:
        cards.n_cards = n_cards
        cells = [_cell(cards, size) for size in SIZES]
        rows.append([str(settings.train.batch_size), str(n_cards), *cells])
        if n_cards == 1 and all(cell.startswith("fits") for cell in cells):
            return [[*rows[0][:1], "1 or more", *cells]]
    return rows


def _cell(cards: Cards, size: int) -> str:
    if not cards.share:
        return "–"
    fit = cards.fit(size * GIB)
    return "no" if fit is None else f"{_told(fit)} ({-(-fit.whole // GIB)})"


def _told(fit: Fit) -> str:
    words = (
        f"{SHORT.get(key, key.partition('.')[2])} {'' if value is True else value}"
        for key, value in fit.changes.items()
    )
    return ", ".join(word.strip() for word in words) or "fits"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
