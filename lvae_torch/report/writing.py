"""Writes the report of a run: from its folder at any time, or while it is being trained."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np
from torch import Tensor

from lvae_torch.errors import DataError, UserError, say
from lvae_torch.files import write_text
from lvae_torch.hparams import Settings
from lvae_torch.report.facts import Facts
from lvae_torch.report.page import Reported, page
from lvae_torch.report.pictures import Painter, Picture
from lvae_torch.runs.folder import RunFolder
from lvae_torch.trained.run import TrainedRun

NAME = "report.html"
MOST_IMAGES = 64
POINTS = 1000


def about_run(run: TrainedRun) -> dict[str, str]:
    """Model, data and programs of a run, as far as its weights know them."""
    n_parameters = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    latents = "  ".join("x".join(map(str, shape)) for shape in run.latent_shapes)
    levels = f"{run.trained_on.n_levels} levels" if run.trained_on.n_levels else "values without levels"
    told = {
        "parameters": f"{n_parameters:,}",
        "latents, top first": latents or "none",
        "images": f"{' x '.join(map(str, run.trained_on.image_shape))}, {levels}",
        "data": f"{run.trained_on.dataset}, content {run.trained_on.content_hash[:12]}",
    }
    known = dict(run.versions)
    if commit := known.pop("commit", ""):
        told["commit"] = commit
    return {**told, "programs": ", ".join(f"{program} {version}" for program, version in known.items())}


def reported(run: TrainedRun, x: Tensor | None, why_not: str = "") -> Reported:
    """A trained run with its pictures."""
    section = run.settings.run
    painter = Painter(run.model, x, section.seed, run.device, run.settings.synthesis.batch_size)
    return Reported(Facts.of(run.settings, about_run(run)), painter.pictures(), why_not)


def images_to_show(run: TrainedRun) -> tuple[Tensor | None, str]:
    """A few images of the validation split, spread evenly; or None, and why."""
    n = POINTS if prod(run.trained_on.image_shape[1:]) == 1 else MOST_IMAGES
    try:
        return run.images(limit=n), ""
    except UserError as error:
        return None, f"There are no reconstructions, for the images cannot be read: {error}"


def write_report(path: Path, runs: Sequence[Reported]) -> None:
    """Write the page.

    Raises:
        DataError: if the file cannot be written.
    """
    write_text(path, page(runs), durable=False)


class ReportWriter:
    """A reporter of the training: it writes the report after each evaluation, and when the training is over.

    The pictures are drawn with the weights that were evaluated. Nothing that fails here ends the training; it is told
    once.

    Args:
        looked_at: gives the evaluated model as a run, with its step.
        x: images to reconstruct; None for no pictures at all.
        is_asked_to_stop: whether the training shall end soon, so that pictures can wait.
    """

    def __init__(
        self,
        settings: Settings,
        looked_at: Callable[[int], TrainedRun],
        x: Tensor | None,
        is_asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings, self._looked_at, self._x = settings, looked_at, x
        self._is_asked_to_stop = is_asked_to_stop
        self._about: dict[str, str] = {}
        self._pictures: Sequence[Picture] = ()
        self._has_warned = False

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """After an evaluation, when ``metrics.jsonl`` already has its numbers."""
        if "val/nelbo" in values:
            self._guarded(lambda: self._draw(step))

    def image(self, step: int, tag: str, grid: np.ndarray) -> None:
        """Does nothing: the report draws its own."""

    def histogram(self, step: int, tag: str, values: np.ndarray) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing: ``finish`` comes after the run's last status."""

    def finish(self) -> None:
        """Write the report once more, with how the run ended."""
        self._guarded(self._write)

    def _draw(self, step: int) -> None:
        run = self._looked_at(step)
        self._about = about_run(run)
        if self._x is not None and not self._is_asked_to_stop():
            at_once = self._settings.val.batch_size
            painter = Painter(run.model, self._x, self._settings.run.seed, run.device, at_once, self._is_asked_to_stop)
            self._pictures = painter.pictures()
        self._write()

    def _write(self) -> None:
        facts = Facts.of(self._settings, self._about)
        write_report(RunFolder.of(self._settings.run).path / NAME, [Reported(facts, self._pictures)])

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            if not self._has_warned:
                self._has_warned = True
                told = error if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
                say(f"{NAME} could not be written; training goes on without it. {told}")
