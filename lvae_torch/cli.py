"""What every command shares: its arguments, its messages, its exit status."""

import argparse
import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lvae_torch.errors import (
    CfgError,
    DataError,
    UserError,
    say,
)
from lvae_torch.files import check_name
from lvae_torch.hparams import Settings, load
from lvae_torch.runs.folder import RunFolder

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}  # what a disk may answer


def parser(command: str, description: str, what: str = "cfg", help_: str = "the .cfg file") -> argparse.ArgumentParser:
    """A parser with a cfg (or run) and ``--set``, as every command has them."""
    arguments = argparse.ArgumentParser(prog=f"python -m lvae_torch.{command}", description=description)
    arguments.add_argument(what, help=help_)
    arguments.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        dest="overrides",
        help="use this value instead of the cfg's; may be repeated",
    )
    return arguments


def load_run_or_cfg(run_or_cfg: str, overrides: Sequence[str], runs: str = "runs") -> Settings:
    """The settings of a run (by name or folder) as it was trained, or of a cfg file, with overrides on top.

    Raises:
        CfgError: if there is neither such a run nor such a file, or something in it is wrong.
    """
    path = Path(run_or_cfg)
    if path.suffix == ".cfg":
        return load(path, overrides)
    folder = path if (path / "hparams.cfg").is_file() else RunFolder(Path(runs), check_name(run_or_cfg, "the run")).path
    saved = folder / "hparams.cfg"
    if not saved.is_file():
        raise CfgError(f"{run_or_cfg}: neither a .cfg file nor a run ({saved} does not exist). Train it first.")
    # The folder may have been moved since: what is asked for by its place is found at its place.
    place = [f"run.runs={str(folder.parent)!r}", f"run.name={folder.name}"]
    return load(saved, [*place, *overrides])


def main(command: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> None:
    """Run ``command`` and end the process: status 0, or that of the user's error with its message and no traceback."""
    try:
        command(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        say(str(error))
        sys.exit(error.exit_status)
    except OSError as error:
        if error.errno not in DISK:
            raise
        place = "" if error.filename is None else f"{error.filename}: "
        told = (
            f"{place}{error.strerror}. Make room there, or choose a folder that can be written, and repeat the command."
        )
        say(told)
        sys.exit(DataError.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
