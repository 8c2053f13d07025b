"""``python -m lvae_torch.show DUMPS/NAME [--split NAME] [--out FILE]``: a contact sheet of what was dumped.

``python -m lvae_torch.show RUN``: what a run is doing, or how it ended.
"""

import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lvae_torch.cli import add_runs, begin, main, new_parser, path_option

PARSER = new_parser("show")
PARSER.add_argument("what", help="a run's name or folder; or a dump's, such as dataset_dumps/binarized_mnist")
add_runs(PARSER)
PARSER.add_argument("--split", help="which split (default: the dump's first)")
PARSER.add_argument("--out", type=path_option, help="PNG file to write (default: NAME_SPLIT.png beside the dump)")
if __name__ == "__main__":
    begin(PARSER)  # before PyTorch is imported

import numpy as np

from lvae_torch.data.classes import labels_told
from lvae_torch.data.dump import DESCRIPTION, Dump
from lvae_torch.data.order import spread
from lvae_torch.data.section import DataSection
from lvae_torch.data.shapes import POINT
from lvae_torch.distributed.launcher import is_gone
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import NAME, place_of, read_json
from lvae_torch.reporting.console import number, table
from lvae_torch.reporting.grids import SHOWN_AS_THEY_ARE, SMALL, image_grid, save_png
from lvae_torch.reporting.progress import duration
from lvae_torch.runs.bundle import CARD, SETTINGS, is_bundle
from lvae_torch.runs.folder import runs_told

DUMPS = Path(DataSection.model_fields["dumps"].default)
HEARD = 120.0  # seconds; a run writes its status every 15
SHEET = 1200  # pixels across, more or less


def contact_sheet(images: np.ndarray, n_levels: int, columns: int) -> np.ndarray:
    """Images with levels (n, H, W, C), row by row as one picture: uint8 (height, width, 3)."""
    return image_grid(images.transpose(0, 3, 1, 2).astype(np.float32) / (n_levels - 1), columns)


def scatter(points: np.ndarray, side: int = 600) -> np.ndarray:
    """Draw points of the plane (n, 2), darker where they are dense, with y upwards: uint8 (side, side, 3)."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, max((high - low).max() / 2 * 1.25, 1e-6)  # one scale for both axes, with a margin
    ends = [(middle[k] - half, middle[k] + half) for k in (0, 1)]
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=side, range=ends)
    ink = np.log1p(counts.T[::-1]) / np.log1p(counts.max())
    return np.broadcast_to((255 - 215 * ink).astype(np.uint8)[..., None], (side, side, 3))


def show(dump: Dump, split: str, out: Path) -> int:
    """Write a contact sheet of images spread evenly over ``split``; return how many it shows.

    Points of the plane are all drawn in one picture.

    Raises:
        DataError: if there is no such split, the images have no levels, or ``out`` cannot be written.
    """
    channels, height, width = dump.image_shape
    images = dump.split(split)
    if dump.image_shape == POINT:
        save_png(out, scatter(images.gather(np.arange(len(images))).numpy().reshape(-1, 2)))
        return len(images)
    if not dump.n_levels:
        raise DataError(f"{dump.folder}: a sheet shows images with levels; this has {dump.layout}.")
    across = width if channels in SHOWN_AS_THEY_ARE else channels * width
    columns = min(20, max(4, SHEET // max(SMALL, height, across)))
    chosen = images.gather(spread(len(images), columns**2)).numpy()
    save_png(out, contact_sheet(chosen, dump.n_levels, columns))
    return len(chosen)


def status_of(what: str, runs: Path) -> Path | None:
    """The ``status.json`` of a run by its folder or name; None if there is no such run."""
    found = (place / "status.json" for place in _places(what, runs))
    return next((path for path in found if path.is_file()), None)


def _places(what: str, runs: Path) -> list[Path]:
    """Where a run of this folder or name may lie."""
    return [place_of(what, "the run"), *([runs / what] if NAME.fullmatch(what) else [])]


def told_status(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A run's status as a person reads it; one that says it runs, but was not heard of lately, does not live."""
    age = (datetime.now(UTC) - datetime.fromisoformat(status["time"])).total_seconds()
    state = status["state"]
    if state == "running" and not _lives(status, age):
        state = "killed: it says that it is running, but its process is gone; the same command continues it"
    rows = [("state", state), ("step", _of(status["step"], status.get("steps")))]
    if state == "running" and (phase := status.get("phase")):
        rows.append(("phase", phase if phase == "training" else f"{phase} {_of(status['done'], status['total'])}"))
        if (left := status.get("seconds_to_go")) is not None:
            rows.append(("to go", duration(left)))
    if (rate := status.get("images_per_second")) is not None:
        rows.append(("rate", f"{rate:,.0f} images/s"))
    if evaluation := status.get("last_evaluation"):
        told = (_evaluated(key, value) for key, value in evaluation.items() if value is not None)
        rows.append(("last evaluation", "  ".join(told)))
    rows += [("device", status["device"])] if "device" in status else []
    rows.append(("process", f"{status['process']} on {status['host']}, heard of {duration(age)} ago"))
    return rows + ([("message", status["message"])] if status["message"] else [])


def _evaluated(key: str, value: float) -> str:
    """A step, nats, or bits per dimension, which differ in the digits that tell something."""
    return f"step {value:,.0f}" if key == "step" else f"{key} {number(value, 4 if key.endswith('bpd') else 2)}"


def _lives(status: Mapping[str, Any], age: float) -> bool:
    """Whether the process is there, on this host; of another host, whether it was heard of in the last minutes."""
    if status["host"] == socket.gethostname():
        return not is_gone(int(status["process"]))
    return age < HEARD


def _of(done: int, total: int | None) -> str:
    return f"{done:,} of {total:,} ({done / total:.0%})" if total else f"{done:,}"


def _folder_of(what: str) -> Path:
    """The folder that is named; or, of a mere name that is no folder here, that of the dump which would have it."""
    here = place_of(what, "the dump").resolve()
    return here if here.exists() or not NAME.fullmatch(what) else DUMPS / what


def _opened(folder: Path, what: str, runs: Path) -> Dump:
    """The dump in ``folder``.

    Raises:
        DataError: if it is none, with the runs that there are, one of which may have been meant.
    """
    if (folder / DESCRIPTION).exists():
        return Dump.open(folder.parent, folder.name)
    if is_bundle(folder):
        raise DataError(f"{what}: a bundle, which does not train. {folder / CARD} tells of it; lvae explore shows it.")
    for place in _places(what, runs):
        if (place / SETTINGS).is_file():
            raise DataError(f"{place}: a run that has no status.json. What is known of it: lvae report {what}")
    try:
        return Dump.open(folder.parent, folder.name)
    except (CfgError, DataError) as error:
        raise DataError(f"{what}: there is no such run (Runs: {runs_told(runs)}), and no dump. {error}") from error


def command(argv: Sequence[str]) -> None:
    """Show the dump or the run that the arguments name."""
    arguments = PARSER.parse_args(argv)
    if (status := status_of(arguments.what, arguments.runs)) is not None:
        if arguments.split or arguments.out:
            raise CfgError(f"{arguments.what} is a run; --split and --out are for dumps. Its pictures: lvae report.")
        print(table(status.resolve().parent.name, told_status(read_json(status))))
        return
    folder = _folder_of(arguments.what)
    dump = _opened(folder, arguments.what, arguments.runs)
    split = arguments.split or next(iter(dump.shards))
    out = arguments.out or folder.parent / f"{folder.name}_{split}.png"
    n = show(dump, split, out)
    counts = ", ".join(f"{name} {count:,}" for name, count in dump.counts.items())
    print(f"{dump.folder}: {counts}; images {dump.image_shape}, {dump.n_levels} levels; {dump.identity}")
    if told := labels_told(dump, split):
        print(f"labels of {split}: {told}")
    print(f"{out}: {n} images of {split}, evenly spread")


if __name__ == "__main__":
    main(command)
