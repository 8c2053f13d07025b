"""Errors that the user can mend, each with the exit status of the commands; guesses at what was meant; printing.

Every message names the file, key or rank, what was expected, and what to do.
Exit status 0 means done; 1 means a defect of this program, with a traceback.
"""

import difflib
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import ClassVar


class UserError(Exception):
    """Something outside the program must change; shown without a traceback."""

    exit_status: ClassVar[int] = 2


class CfgError(UserError, ValueError):
    """A setting, a name or a command line is wrong."""


class DataError(UserError, ValueError):
    """A dump, checkpoint or other file is missing, damaged or of another kind."""

    exit_status: ClassVar[int] = 3


class OutOfMemory(UserError, MemoryError):
    """The device or the host has not enough memory for what the settings ask for."""


class NumericalError(UserError, ArithmeticError):
    """Training cannot go on: too many steps in a row without a finite gradient."""

    exit_status: ClassVar[int] = 4


class Diverged(NumericalError):
    """The same, before it is known whether an earlier checkpoint is good."""


class Preempted(UserError):
    """A signal asked for a stop; everything is saved and the same command continues."""

    exit_status: ClassVar[int] = 75


class LostRank(UserError, ConnectionError):
    """Another rank is gone or never arrived; the same command continues from the last checkpoint."""

    exit_status: ClassVar[int] = 75


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a misspelt one may have meant; None if none is alike."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def say(line: str) -> None:
    """Print a line to standard error; a closed terminal does not stop the work."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)
