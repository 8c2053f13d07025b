"""Arguments, messages and exit statuses that all commands share. This module imports nothing heavy."""

import argparse
import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from lvae_torch.distributed.launcher import end_with_launcher
from lvae_torch.distributed.signals import heard_at_once, stopped_by
from lvae_torch.errors import DataError, Preempted, UserError, closest, say
from lvae_torch.files import expanded

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}  # errors of a disk

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables that say how OpenMP's threads wait."""

COMMANDS: dict[str, str] = {
    "train": "Train a run, or continue it: the same command does both.",
    "synthesize": "Use a trained run: reconstruct, generate, encode, decode, measure.",
    "explore": "Look at a trained run in the browser: samples, layers, latents.",
    "sweep": "Train several runs, use each, and compare them.",
    "info": "Show a model's layers, sizes and costs without training it.",
    "doctor": "Look at this machine: driver, cards, memory, file systems; and say what to mend.",
    "show": "Draw a contact sheet of a dataset's dump, or tell what a run is doing.",
    "report": "Write what is known of a run as one HTML file, with curves and pictures.",
    "export": "Write a trained run as a bundle that others can load.",
    "compress": "Compress images without loss, with a trained run.",
    "decompress": "Get the images of an archive back, as they were.",
    "import": "Take over a run of another program, settings and weights.",
    "models": "List the published models that can be imported.",
    "data": "Download and prepare datasets (python -m data_scripts).",
}
"""The subcommands of ``lvae``, each with what it does."""
MODULES = {
    "compress": "lvae_torch.compression.compress",
    "decompress": "lvae_torch.compression.decompress",
    "import": "lvae_torch.import_run",
    "models": "lvae_torch.importing.models",
    "data": "data_scripts",
}
"""Where a subcommand is not the module of its own name."""


class Parser(argparse.ArgumentParser):
    """Says what a misspelt choice may have meant, which Python's own does from 3.14 on."""

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '(?P<word>.*)' \(choose from (?P<known>.*)\)", message)
        meant = closest(wrong["word"], re.findall(r"[\w.-]+", wrong["known"])) if wrong else None
        super().error(f"{message}. Did you mean {meant!r}?" if meant else message)


def module_of(command: str) -> str:
    """The module that ``python -m`` runs for a subcommand."""
    return MODULES.get(command, f"lvae_torch.{command}")


def new_parser(command: str) -> Parser:
    """A parser without arguments for a subcommand, with its name and description in the help."""
    return Parser(prog=f"python -m {module_of(command)}", description=COMMANDS[command])


def parser(command: str, what: str = "cfg", help_: str = "the .cfg file") -> argparse.ArgumentParser:
    """A parser with a cfg (or run) and ``--set``."""
    arguments = new_parser(command)
    arguments.add_argument(what, help=help_)
    add_overrides(arguments)
    return arguments


def add_overrides(arguments: argparse.ArgumentParser) -> None:
    """Add ``--set``, for commands that read a cfg."""
    arguments.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        dest="overrides",
        help="use this value instead of the cfg's; may be repeated",
    )


def path_option(text: str) -> Path:
    """A path as argparse's ``type``: shells leave the ``~`` of ``--out=~/x`` to the program.

    Raises:
        argparse.ArgumentTypeError: for a variable that is not set, or a home that there is not.
    """
    try:
        return Path(expanded(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_runs(arguments: argparse.ArgumentParser) -> None:
    """Add ``--runs``, for commands to which a run may be named."""
    told = "folder in which a run's name is looked for (default: %(default)s)"
    arguments.add_argument("--runs", type=path_option, default="runs", help=told)


def begin(arguments: argparse.ArgumentParser) -> None:
    """What a command does before PyTorch is imported, which takes seconds: answer ``--help`` and wrong usage at once.

    Threads of OpenMP then sleep where they wait for one another, unless the environment says otherwise: those that wait
    actively take the cores from whoever else computes on the machine, themselves included.
    """
    end_with_launcher()
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"
    arguments.parse_args()


def main(command: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> None:
    """Run ``command``; a UserError ends the process with its message and exit status, without a traceback."""
    try:
        with heard_at_once():
            command(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        say(str(error))
        sys.exit(error.exit_status)
    except OSError as error:
        if error.errno not in DISK:
            raise
        place = "" if error.filename is None else f"{error.filename}: "
        may_not = error.errno in (errno.EACCES, errno.EPERM)
        remedy = (
            "Change its rights, or use another"
            if may_not
            else "Make room there, or choose a folder that can be written"
        )
        say(f"{place}{error.strerror}. {remedy}, and repeat the command.")
        sys.exit(DataError.exit_status)
    except KeyboardInterrupt:
        say(stopped_by(signal.SIGINT))
        sys.exit(Preempted.exit_status)
