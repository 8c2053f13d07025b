"""Trackers: each a reporter in a file of its own, which ``runs/trackers.py`` lists. None can stop a training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module

from lvae_torch.errors import DataError
from lvae_torch.files import read_json, write_json
from lvae_torch.reporting.guarded import GuardedReporter
from lvae_torch.reporting.reporter import Reporter
from lvae_torch.runs.folder import RunFolder

KEPT = "trackers.json"


@dataclass(frozen=True)
class Tracked:
    """The run that a tracker follows, from ``start_step`` on."""

    folder: RunFolder
    start_step: int
    total_steps: int
    settings: str
    """The resolved settings as cfg text."""
    values: Mapping[str, str | float] = field(default_factory=dict)
    """Hyperparameters by ``section.key``."""

    @property
    def name(self) -> str:
        return self.folder.name

    def kept(self, tracker: str, make: Callable[[], str], is_there: Callable[[str], bool] = lambda _: True) -> str:
        """What a tracker calls this run: made once, then kept in the run's folder, so that a resumed run goes on in it.

        A folder that was copied and renamed is a run of its own.

        Args:
            is_there: whether the tracker still knows the run by this name; if not, another one is made.
        """
        path = self.folder.path / KEPT
        try:
            known = read_json(path) if path.is_file() else {}
        except DataError:
            known = {}
        found = known.get(tracker) if isinstance(known, dict) else None
        id_ = found.get("id") if isinstance(found, dict) and found.get("run") == self.name else None
        if isinstance(id_, str) and is_there(id_):
            return id_
        made = make()
        write_json(path, {**(known if isinstance(known, dict) else {}), tracker: {"run": self.name, "id": made}})
        return made


def trackers(names: tuple[str, ...], run: Tracked) -> list[Reporter]:
    """The reporters of ``[run] trackers``; what fails in one of them is told once, and the others go on."""
    return [GuardedReporter(name, partial(_opened, name, run)) for name in names]


def _opened(name: str, run: Tracked) -> Reporter:
    reporter: Reporter = import_module(f"{__name__}.{name}").reporter(run)
    return reporter
