"""The results of a training run, as a table."""

import math

from lvae_torch.data.run_data import RunData
from lvae_torch.data.section import DataSection
from lvae_torch.elbo.bounds import bits_per_dim
from lvae_torch.elbo.evaluation import Evaluation
from lvae_torch.reporting.console import number, table
from lvae_torch.runs.folder import RunFolder
from lvae_torch.training.log import TrainingWatch
from lvae_torch.training.loop import Run, has_lost_patience
from lvae_torch.training.section import TrainSection


def training_summary(run: Run, train: TrainSection, section: DataSection, data: RunData, folder: RunFolder) -> str:
    """A table of the results, the data they were measured on, and the run's folder."""
    ended = f" of {run.plan.steps:,}: ended by [val] patience = {run.plan.patience}" if has_lost_patience(run) else ""
    rows = [("run", str(folder.path)), ("steps", f"{run.state.step:,}{ended}")]
    if skipped := run.train_step.meter.skipped():
        rows.append(("skipped steps", f"{skipped:,}"))
    rows.append(("parameters", f"{run.train_step.flat.vector.numel():,}"))
    if isinstance(run.watcher, TrainingWatch) and run.watcher.last is not None:
        rows += _evaluation_rows(run.watcher.last, run.train_step.bare.n_dims, train, section, data)
    if math.isfinite(run.state.best_nelbo):
        chosen = ", whose weights the run goes by" if run.state.chosen_step else ""
        rows.append(("best", f"-ELBO {run.state.best_nelbo:.2f} at step {run.state.best_step:,}{chosen}"))
    return table(f"{folder.name}: finished", rows)


def _evaluation_rows(
    evaluation: Evaluation, n_dims: int | None, train: TrainSection, section: DataSection, data: RunData
) -> list[tuple[str, str]]:
    """Rows of the likelihood, with everything needed to compare it."""

    def nats(value: float) -> str:
        if not math.isfinite(value):
            return "not finite"
        return f"{value:.2f} nats" + (f" ({bits_per_dim(value, n_dims):.4f} bits/dim)" if n_dims else "")

    images = f"{evaluation.n_images:,} images of {section.val_split}{_binarized(section)}"
    rows = [
        ("data", f"{data.dump.identity}, {images}"),
        ("weights", f"EMA {train.ema_decay}" if train.ema_decay else "as trained"),
        ("-ELBO", nats(evaluation.nelbo)),
        ("NLL + KL", f"{evaluation.nll:.2f} + {sum(evaluation.kl):.2f}"),
        ("KL per layer, top first", "  ".join(number(kl, 2) for kl in evaluation.kl)),
        ("active units, top first", "  ".join(map(str, evaluation.units.active()))),
    ]  # fmt: skip
    if dimensions := data.dump.provenance.get("dimensions_of_images"):
        spent = f"{bits_per_dim(evaluation.nelbo, int(dimensions)):.4f} bits per dimension of the images they stand for"
        rows.insert(3, ("codes", spent))
    if evaluation.published_nelbo is not None:
        rows.insert(
            3, ("-ELBO as published", f"{nats(evaluation.published_nelbo)}, with the original's approximations")
        )
    if evaluation.iw_bound is not None:
        rows.insert(3, (f"-log p(x), {evaluation.iw_samples} samples", nats(evaluation.iw_bound)))
    rows += _rows_of_some_families(evaluation, math.prod(data.dump.image_shape))
    return [(name, value) for name, value in rows if value]


def _binarized(section: DataSection) -> str:
    return "" if section.binarize == "none" else f", binarize = {section.binarize}"


def _rows_of_some_families(evaluation: Evaluation, n_values: int) -> list[tuple[str, str]]:
    """Rows of some families: penalties, usage of codes, and for models without latents the nats per dimension."""
    terms = {name: value for name, value in evaluation.extras.items() if name.startswith("penalty/")}
    rows = [(name, f"{value:.4f}") for name, value in evaluation.extras.items() if name not in terms]
    if evaluation.extras:
        told = "".join(f" + {value / n_values:.4f} {name.removeprefix('penalty/')}" for name, value in terms.items())
        total = (evaluation.nll + sum(terms.values())) / n_values
        rows.append(("per dimension", f"{total:.4f} = {evaluation.nll / n_values:.4f} NLL{told}"))
    if not evaluation.kl:
        rows.append(("per dimension", f"{evaluation.nelbo / n_values:.4f} nats"))
    return rows
