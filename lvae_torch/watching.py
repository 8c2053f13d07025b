"""What a training run shows of itself: numbers and pictures, to every reporter at once."""

import math
import resource
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lvae_torch.assembled_data import Data
from lvae_torch.elbo.bounds import bits_entry, bits_per_dim, dims_of_bits
from lvae_torch.elbo.evaluation import Evaluation
from lvae_torch.hparams import Settings, to_cfg, whole
from lvae_torch.models.contract import Model
from lvae_torch.models.sources import posterior_sample, prior_sample
from lvae_torch.reporting.console import ConsoleReporter, table
from lvae_torch.reporting.grids import image_grid, pair_grid
from lvae_torch.reporting.jsonl import JsonlReporter
from lvae_torch.reporting.reporter import Reporter
from lvae_torch.reporting.tensorboard import TensorBoardReporter
from lvae_torch.runs.folder import RunFolder
from lvae_torch.seeding import seed_everything
from lvae_torch.training.loop import Run, has_lost_patience
from lvae_torch.training.meter import Reading


@dataclass
class TrainingWatch:
    """The loop's watcher: turns readings and evaluations into named scalars and image grids."""

    reporter: Reporter
    model: Model
    """The model that is evaluated."""
    pictures: Tensor | None
    """Images to reconstruct, (B, C, H, W) in [0, 1]; None for no pictures."""
    seed: int
    last: Evaluation | None = None

    @property
    def n_dims(self) -> int | None:
        return dims_of_bits(self.model)

    def begins(self, step: int) -> None:
        """Training goes on from ``step``."""
        self._since, self._counted = time.monotonic(), step

    def logged(self, step: int, reading: Reading, learning_rate: float, images_per_step: int) -> None:
        """Means since the last log line."""
        nelbo = reading.nelbo
        values = {
            "train/loss": reading.loss,
            "train/nelbo": nelbo,
            **bits_entry("train/bpd", nelbo, self.n_dims),
            "train/nll": reading.nll,
            "train/kl": sum(reading.kl),
        }
        values |= {f"train/kl/{i:02d}": kl for i, kl in enumerate(reading.kl)}
        values |= {f"train/{name}": value for name, value in reading.extras.items()}
        values |= {
            "train/grad_norm": reading.grad_norm,
            "train/skipped_steps": float(reading.skipped),
            "train/learning_rate": learning_rate,
            "speed/images_per_second": self._images_per_second(step, images_per_step),
            "speed/peak_memory_gib": peak_memory_gib(next(iter(self._parameters())).device),
        }
        self.reporter.scalars(step, values)

    def evaluated(self, step: int, evaluation: Evaluation, seconds: float) -> None:
        """The validation split, which took so long, with a grid of samples and one of reconstructions."""
        start, self.last = time.monotonic(), evaluation
        self.reporter.scalars(step, {f"val/{k}": v for k, v in evaluation.scalars(self.n_dims).items()})
        for i, kl in enumerate(evaluation.units.kl):
            self.reporter.histogram(step, f"val/kl_units/{i:02d}", kl.flatten().cpu().numpy())
        if self.pictures is not None:
            self._show(step, self.pictures)
        self._since += seconds + time.monotonic() - start  # evaluation is no part of the training speed

    @torch.no_grad()
    def _show(self, step: int, x: Tensor) -> None:
        seed_everything("pictures", self.seed)  # the same noise each time, so that pictures of two steps compare
        was_training = self.model.training
        self.model.eval()  # looking changes no statistic
        reconstruction = self.model(x, posterior_sample).likelihood.mean()
        at_full_width = prior_sample([1.0] * len(self.model.latent_shapes()))
        samples = self.model(None, at_full_width, n=x.shape[0]).likelihood.mean()
        self.model.train(was_training)
        columns = max(1, int(x.shape[0] ** 0.5))
        self.reporter.image(step, "samples", image_grid(samples, columns))
        self.reporter.image(step, "reconstructions", pair_grid(x, reconstruction, columns))

    def _images_per_second(self, step: int, images_per_step: int) -> float:
        now = time.monotonic()
        elapsed, self._since = now - self._since, now
        n_steps, self._counted = step - self._counted, step
        return n_steps * images_per_step / max(elapsed, 1e-9)

    def _parameters(self) -> list[Tensor]:
        assert isinstance(self.model, nn.Module)
        return list(self.model.parameters())


def training_reporters(folder: RunFolder, settings: Settings, start_step: int) -> list[Reporter]:
    """TensorBoard, ``metrics.jsonl`` and the console, going on from ``start_step``."""
    tensorboard = TensorBoardReporter(folder.tensorboard, start_step)
    tensorboard.hparams(to_cfg(settings), _flat(settings))
    return [
        tensorboard,
        JsonlReporter(folder.metrics_jsonl, start_step),
        ConsoleReporter(whole(settings.train.steps), start_step),
    ]


def _flat(settings: Settings) -> dict[str, str | float]:
    """Numbers as numbers, the rest as text."""
    values: dict[str, str | float] = {}
    for section in ("model", "data", "loss", "optimizer", "train"):
        for key, value in getattr(settings, section).model_dump().items():
            values[f"{section}.{key}"] = value if isinstance(value, bool | int | float | str) else repr(value)
    return values


def training_summary(run: Run, settings: Settings, data: Data, folder: RunFolder) -> str:
    """What came out, as a table: the numbers, what they were measured on, and where everything is."""
    ended = f" of {run.plan.steps:,}: ended by [val] patience = {run.plan.patience}" if has_lost_patience(run) else ""
    rows = [("run", str(folder.path)), ("steps", f"{run.state.step:,}{ended}")]
    if skipped := run.train_step.meter.skipped():
        rows.append(("skipped steps", f"{skipped:,}"))
    rows.append(("parameters", f"{run.train_step.flat.vector.numel():,}"))
    if isinstance(run.watcher, TrainingWatch) and run.watcher.last is not None:
        rows += evaluation_rows(run.watcher.last, run.watcher.n_dims, data, settings)
    if math.isfinite(run.state.best_nelbo):
        chosen = ", whose weights the run goes by" if run.state.chosen_step else ""
        rows.append(("best", f"-ELBO {run.state.best_nelbo:.2f} at step {run.state.best_step:,}{chosen}"))
    return table(f"{folder.name}: finished", rows)


def evaluation_rows(
    evaluation: Evaluation, n_dims: int | None, data: Data, settings: Settings
) -> list[tuple[str, str]]:
    """The likelihood with everything a reader must know to compare it."""

    def nats(value: float) -> str:
        return f"{value:.2f} nats" + (f" ({bits_per_dim(value, n_dims):.4f} bits/dim)" if n_dims else "")

    images = f"{evaluation.n_images:,} images of {settings.data.val_split}{_binarized(settings)}"
    rows = [
        ("data", f"{data.dump.identity}, {images}"),
        ("weights", f"EMA {settings.train.ema_decay}" if settings.train.ema_decay else "as trained"),
        ("-ELBO", nats(evaluation.nelbo)),
        ("NLL + KL", f"{evaluation.nll:.2f} + {sum(evaluation.kl):.2f}"),
        ("KL per layer, top first", "  ".join(f"{kl:.2f}" for kl in evaluation.kl)),
        ("active units, top first", "  ".join(map(str, evaluation.units.active()))),
    ]  # fmt: skip
    if dimensions := data.dump.provenance.get("dimensions_of_images"):
        spent = f"{bits_per_dim(evaluation.nelbo, int(dimensions)):.4f} bits per dimension of the images they stand for"
        rows.insert(3, ("codes", spent))
    if evaluation.iw_bound is not None:
        rows.insert(3, (f"-log p(x), {evaluation.iw_samples} samples", nats(evaluation.iw_bound)))
    rows += _rows_of_some_families(evaluation, math.prod(data.dump.image_shape))
    return [(name, value) for name, value in rows if value]


def _binarized(settings: Settings) -> str:
    return "" if settings.data.binarize == "none" else f", binarize = {settings.data.binarize}"


def _rows_of_some_families(evaluation: Evaluation, n_values: int) -> list[tuple[str, str]]:
    """Penalties beside the likelihood, the usage of codes; of models without latents the nats of one value."""
    terms = {name: value for name, value in evaluation.extras.items() if name.startswith("penalty/")}
    rows = [(name, f"{value:.4f}") for name, value in evaluation.extras.items() if name not in terms]
    if evaluation.extras:
        told = "".join(f" + {value / n_values:.4f} {name.removeprefix('penalty/')}" for name, value in terms.items())
        total = (evaluation.nll + sum(terms.values())) / n_values
        rows.append(("per dimension", f"{total:.4f} = {evaluation.nll / n_values:.4f} NLL{told}"))
    if not evaluation.kl:
        rows.append(("per dimension", f"{evaluation.nelbo / n_values:.4f} nats"))
    return rows


def peak_memory_gib(device: torch.device) -> float:
    """Most memory this process has held on ``device``, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
