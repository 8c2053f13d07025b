"""``python -m lvae_torch.import_run WHAT``: a run of another program, settings and weights, as a run of ours."""

from collections.abc import Sequence
from pathlib import Path

from lvae_torch.cli import add_overrides, begin, main, new_parser, path_option

PARSER = new_parser("import")
PARSER.add_argument("what", help="a file, folder or zip archive of the other program; or a name of `lvae models`")
PARSER.add_argument("--source", type=path_option, help="where the files of a model named by `lvae models` lie")
PARSER.add_argument("--name", help="name of the new run (default: that of the model, the file or the folder)")
PARSER.add_argument("--preset", help="openai/vdvae: which of its presets, instead of the one whose shapes fit")
PARSER.add_argument("--cfg", type=path_option, help="Efficient-VDVAE: its cfg, where none lies beside the checkpoint")
PARSER.add_argument("--exact", action="store_true", help="learning rate and beta of each step as in the other program")
PARSER.add_argument("--only-average", action="store_true", help="take the averaged weights alone: to use, not to train")
add_overrides(PARSER)
if __name__ == "__main__":
    begin(PARSER)  # before PyTorch is imported

import re
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace

from lvae_torch.cfg.expressions import evaluate
from lvae_torch.cfg.reader import parse_overrides
from lvae_torch.data.run_data import described_images, make_preprocess, open_dump
from lvae_torch.errors import CfgError, DataError, say
from lvae_torch.files import expanded, make_folder, place_of
from lvae_torch.hparams import Settings, keep_settings, load_text, to_cfg
from lvae_torch.importing.checkpoint import as_checkpoint
from lvae_torch.importing.published import Published, check_seen, published_models, record_seen
from lvae_torch.importing.schedules import told_differences
from lvae_torch.interop.collect import recognised
from lvae_torch.interop.runs import read_run
from lvae_torch.interop.taken import Taken
from lvae_torch.runs.checkpoint import UNKNOWN, TrainedOn
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.runs.folder import RunFolder

DOWNLOADS = ".downloads"  # a name that no run can have


def command(argv: Sequence[str]) -> None:
    """Write the run, and say how to use it."""
    options = PARSER.parse_args(argv)
    model = published_models().get(options.what)
    if model is None and options.source is not None:
        raise CfgError(
            f"{options.what}: no published model of that name; `lvae models` lists them. Files of your own are "
            f"imported without --source: lvae import {options.source} --name {options.what}"
        )
    runs = _folder_of_runs(options.overrides)
    source = options.source or (place_of(options.what, "the file") if model is None else _fetched(model, runs))
    with recognised(source, runs) as found:
        for file in found:
            print(file.line)
        preset = options.preset or (model.preset if model is not None else None)
        taken = read_run(found, preset, options.cfg, options.only_average)
        seen = {} if model is None else check_seen(runs, model, taken.files)
        settings, folder = import_run(
            taken, options.name or _name_of(options.what if model is not None else str(source)), options
        )
        if model is not None:
            record_seen(runs, model, seen)
    for note in taken.notes:
        say(f"note: {note}.")
    if not options.exact:
        exact = load_text(to_cfg(settings), "the run's settings", taken.exact)
        for line in told_differences(settings, exact, taken.step):
            say(f"note: {line}")
    print(f"{folder.path}: the run of {taken.program} at step {taken.step:,}. Use it:")
    print(f"  lvae synthesize {folder.path} --mode generation")


def _folder_of_runs(overrides: Sequence[str]) -> Path:
    """Where the run is to lie, which is known before its settings are.

    Raises:
        CfgError: if it names a variable that is not set.
    """
    entry = parse_overrides(overrides).get(("run", "runs"))
    try:
        runs = Path("runs" if entry is None else expanded(str(evaluate(entry.text))))
    except ValueError as error:
        raise CfgError(f"--set run.runs: {error}. Give the folder of all runs.") from error
    make_folder(runs)
    return runs


def import_run(taken: Taken, name: str, options: Namespace) -> tuple[Settings, RunFolder]:
    """Write ``runs/NAME/`` from what was read; nothing is left of it where that fails.

    Raises:
        DataError: if files are damaged or of another model.
        CfgError: if there is a run of that name already.
    """
    settings = _settings(taken, name, options)
    folder = RunFolder.of(settings.run)
    if folder.has_checkpoints:
        raise CfgError(f"{folder.path}: there is a run of that name; choose another (--name), or ./reset.sh {name}.")
    checkpoint = as_checkpoint(settings, _trained_on(settings, taken), taken)
    with folder.lock():
        keep_settings(folder, settings)
        CheckpointStore(folder.checkpoints, settings.train.keep_checkpoints).write(taken.step, checkpoint.as_dict())
        is_done = taken.step == settings.train.steps
        folder.write_status("finished" if is_done else "preempted", taken.step, f"taken over from {taken.program}")
    return settings, folder


def _settings(taken: Taken, name: str, options: Namespace) -> Settings:
    """Those of the run; one that has taken more steps than they say is a finished one of as many."""
    dataset = [] if taken.dataset is None else [f"data.dataset={taken.dataset!r}"]
    overrides = [f"run.name={name}", *dataset, *(taken.exact if options.exact else ()), *options.overrides]
    settings = load_text(taken.cfg, taken.cfg_name, overrides)
    steps = settings.train.steps
    if isinstance(steps, int) and steps < taken.step:
        say(f"note: the run is finished, after {taken.step:,} steps; raise [train] steps to train it further.")
        train = settings.train.model_copy(update={"steps": taken.step})
        settings = replace(settings, train=train)
    return settings


def _trained_on(settings: Settings, taken: Taken) -> TrainedOn:
    """The images of ``[data]``: those of the dump; where it is not made yet, those that its name stands for.

    Raises:
        CfgError: if nothing says which shape they have.
    """
    images, content_hash = taken.images, UNKNOWN
    if (described := described_images(settings.data)) is not None:
        images = described[0], make_preprocess(settings.data, described[1]).levels_after
    if images is None:
        raise CfgError(f"[data] dataset: the image shape of {settings.data.dataset} is unknown without its dump.")
    try:
        content_hash = open_dump(settings.data).content_hash
    except DataError as error:  # the run can be used, and goes on with whatever dump has that name later
        say(f"note: {str(error).rstrip('.')}. Until then only modes that need no images can be used.")
    return TrainedOn(settings.data.dataset, content_hash, *images)


def _name_of(what: str) -> str:
    """A name for the run from that of a file, folder or model."""
    stem = Path(what).resolve().name if Path(what).exists() else what
    name = re.sub(r"[^A-Za-z0-9._-]+|\.\.+", "_", re.sub(r"\.(zip|th|pt|pkl)$", "", stem)).lstrip("._-")
    if not name:
        raise CfgError(f"{what}: no name for the run follows from it; give one with --name.")
    return name[:128]


def _fetched(model: Published, runs: Path) -> Path:
    """The folder that the model's files were downloaded into, by a process of its own; below that of all runs."""
    folder = runs / DOWNLOADS / model.name
    command = [sys.executable, "-m", "data_scripts.fetch_files", model.base, str(folder), *model.files]
    if subprocess.run(command).returncode:
        raise DataError(
            f"{model.name}: its files could not be fetched. Download them by hand (`lvae models {model.name}` says "
            "from where), and repeat the command with --source FILE_or_FOLDER."
        )
    print(f"{folder}: kept for further imports; remove it when you need none.")
    return folder


if __name__ == "__main__":
    main(command)
