"""Sends the numbers and pictures of a training run to all reporters."""

import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from lvae_torch.cfg.section import Section
from lvae_torch.data.labelled import Labelled
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.elbo.bounds import bits_entry
from lvae_torch.elbo.evaluation import Evaluation
from lvae_torch.elbo.evaluator import TellPhase, silent
from lvae_torch.errors import say
from lvae_torch.models.contract import Model, of_classes
from lvae_torch.models.sources import posterior_sample, prior_sample
from lvae_torch.reporting.console import ConsoleReporter
from lvae_torch.reporting.grids import image_grid, pair_grid
from lvae_torch.reporting.jsonl import JsonlReporter
from lvae_torch.reporting.reporter import Reporter
from lvae_torch.reporting.trackers import Tracked, trackers
from lvae_torch.runs.checkpoint import State
from lvae_torch.runs.folder import RunFolder
from lvae_torch.runs.section import RunSection
from lvae_torch.training.meter import Reading

LOST = (
    "WARNING: most of these gradients or losses are not finite. Steps without a finite gradient change nothing; after "
    "[optimizer] max_skips_in_a_row of them the run goes back to its last good checkpoint, or ends and names it. The "
    "cure is a lower learning_rate, or a clip_norm."
)


@dataclass
class TrainingWatch:
    """The watcher of the loop: turns readings and evaluations into named scalars and image grids."""

    reporter: Reporter
    model: Model
    """The model that evaluation uses."""
    pictures: Labelled | None
    """Images to reconstruct, (B, C, H, W) in [0, 1]; None for no pictures."""
    seed: int
    skip_norm: float | None = None
    """``[optimizer] skip_norm``."""
    at_once: int = 64
    """Pictures of one pass."""
    tell: TellPhase = silent
    is_asked_to_stop: Callable[[], bool] = lambda: False
    last: Evaluation | None = None
    _has_warned: bool = False
    _has_told_lost: bool = False

    def begins(self, step: int, rollbacks: int = 0) -> None:
        """Training begins or continues at ``step``, after it went back so often."""
        self._rollbacks = {"train/rollbacks": float(rollbacks)} if rollbacks else {}
        self._since, self._counted = time.monotonic(), step

    def logged(self, step: int, reading: Reading, learning_rate: float, images_per_step: int) -> None:
        """Report the means since the last log line."""
        nelbo = reading.nelbo
        values = {
            "train/loss": reading.loss,
            "train/nelbo": nelbo,
            **bits_entry("train/bpd", nelbo, self.model.n_dims),
            "train/nll": reading.nll,
            "train/kl": sum(reading.kl),
        }
        values |= {f"train/kl/{i:02d}": kl for i, kl in enumerate(reading.kl)}
        values |= {f"train/{name}": value for name, value in reading.extras.items()}
        values |= {
            "train/grad_norm": reading.grad_norm,
            "train/skipped_steps": float(reading.skipped),
            **skipped_values(reading),
            **self._rollbacks,
            "train/learning_rate": learning_rate,
            "speed/images_per_second": self._images_per_second(step, images_per_step),
            "speed/peak_memory_gib": peak_memory_gib(next(self.model.parameters()).device),
        }
        self.reporter.scalars(step, values)
        if self.skip_norm is not None and not self._has_warned and 2 * reading.skipped_now >= reading.n_tried > 0:
            self._has_warned = warn_of_skip_norm(self.skip_norm, reading)
        if reading.is_lost and not self._has_told_lost:
            self._has_told_lost = True
            say(LOST)

    def evaluated(self, step: int, evaluation: Evaluation, seconds: float) -> None:
        """Report an evaluation that took ``seconds``, with a grid of samples and one of reconstructions."""
        start, self.last = time.monotonic(), evaluation
        self.reporter.scalars(step, {f"val/{k}": v for k, v in evaluation.scalars(self.model.n_dims).items()})
        for i, kl in enumerate(evaluation.units.kl):
            self.reporter.histogram(step, f"val/kl_units/{i:02d}", kl.flatten().cpu().numpy())
        if self.pictures is not None:
            self._show(step, self.pictures)
        self._since += seconds + time.monotonic() - start  # leave evaluation out of the training speed

    @torch.no_grad()
    def _show(self, step: int, pictures: Labelled) -> None:
        """A conditional model draws an image of each one's class."""
        seed_everything("pictures", self.seed)  # the same noise at every step, for comparison
        was_training = self.model.training
        self.model.eval()  # looking changes no statistic
        at_full_width = prior_sample([1.0] * len(self.model.latent_shapes()))
        reconstructions, samples = list[Tensor](), list[Tensor]()
        x = pictures.images
        for part in pictures.split(self.at_once):
            if self.is_asked_to_stop():
                break  # and leave after the next step; the pictures can wait
            self.tell("drawing pictures", sum(map(len, samples)), len(x))
            given, drawn = (of_classes(source, part.labels) for source in (posterior_sample, at_full_width))
            reconstructions.append(self.model(part.images, given).likelihood.mean())
            samples.append(self.model(None, drawn, n=len(part)).likelihood.mean())
        else:
            self.tell("drawing pictures", len(x), len(x))
            columns = max(1, int(x.shape[0] ** 0.5))
            self.reporter.image(step, "samples", image_grid(torch.cat(samples), columns))
            self.reporter.image(step, "reconstructions", pair_grid(x, torch.cat(reconstructions), columns))
        self.model.train(was_training)

    def _images_per_second(self, step: int, images_per_step: int) -> float:
        now = time.monotonic()
        elapsed, self._since = now - self._since, now
        n_steps, self._counted = step - self._counted, step
        return n_steps * images_per_step / max(elapsed, 1e-9)


def skipped_values(reading: Reading) -> dict[str, float]:
    """How many of the last steps were skipped, and with which gradient norms; nothing where none were."""
    if not reading.skipped_now:
        return {}
    norms = reading.finite_norms
    return {
        "train/skipped_now": float(reading.skipped_now),
        "train/tried_now": float(reading.n_tried),
        "train/skipped_norm_median": median(norms) if norms else math.nan,
        "train/skipped_norm_largest": norms[-1] if norms else math.nan,
        "train/skipped_not_finite": float(len(reading.skipped_norms) - len(norms)),
    }


def warn_of_skip_norm(skip_norm: float, reading: Reading) -> bool:
    """Say which ``skip_norm`` would have let the skipped steps through; whether there is any."""
    norms = reading.finite_norms
    if norms:
        say(
            f"[optimizer] skip_norm = {skip_norm:g} skipped {reading.skipped_now} of the last {reading.n_tried} steps. "
            f"Their gradient norms: median {median(norms):.4g}, largest {norms[-1]:.4g}. To take half of them it must "
            f"be above {median(norms):.4g}, to take all of them above {norms[-1]:.4g}; None skips only what is not "
            "finite."
        )
    return bool(norms)


def training_reporters(
    section: RunSection,
    state: State,
    total_steps: int,
    settings_text: str,
    hparams: Mapping[str, str | float],
) -> list[Reporter]:
    """Reporters to ``metrics.jsonl``, the console and ``[run] trackers``, which continue from ``state``.

    Args:
        hparams: hyperparameters that trackers list beside the run, by ``section.key``.
    """
    folder, start = RunFolder.of(section), state.step
    is_evaluated, is_chosen = state.evaluated_at == start, state.chosen_step > 0
    return [
        JsonlReporter(folder.metrics_jsonl, start, is_evaluated, is_chosen),
        ConsoleReporter(total_steps, start),
        *trackers(section.trackers, Tracked(folder, start, total_steps, settings_text, hparams)),
    ]


def listed(**sections: Section) -> dict[str, str | float]:
    """The values of sections by ``section.key``: numbers as numbers, the rest as text."""
    return {
        f"{name}.{key}": value if isinstance(value, bool | int | float | str) else repr(value)
        for name, section in sections.items()
        for key, value in section.model_dump().items()
    }


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory of this process on ``device``, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
