"""VAEs of points of the plane: test scores averaged over many posterior draws, and the spread of their samples.

python -m benchmarks.points RUN_FOLDER... [--draws 50] [--figures FOLDER]

A row for each run, nats per point. The covariance is that of 100,000 samples with decoder noise; its error is the
largest of |S_ij - T_ij| / sqrt(T_ii T_jj), T being that of the density which the points were drawn from.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_scripts.toy2d import STDS
from lvae_torch.data.images import Images
from lvae_torch.data.run_data import make_preprocess, open_dump
from lvae_torch.distributed.processes import Processes
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.hparams import Settings
from lvae_torch.models.contract import Model
from lvae_torch.models.sources import posterior_sample, prior_sample
from lvae_torch.synthesis.showing import save_point_samples
from lvae_torch.trained.loading import load_run

ALONE = Processes(0, 1, torch.device("cpu"))
N_SAMPLES, N_SHOWN = 100_000, 1000
COLUMNS = ("run", "-ELBO", "recon", "KL", "held-out -ELBO", "sample covariance", "its error")


def true_covariance(dataset: str) -> np.ndarray:
    """(2, 2), of the density behind ``toy2d_1a`` and so on."""
    which = dataset.removeprefix("toy2d_")
    turn = np.array([[1.0, 1.0], [-1.0, 1.0]]) * np.sqrt(0.5) if which[1] == "a" else np.eye(2)
    covariance: np.ndarray = turn.T @ np.diag(np.square(STDS[which[0]])) @ turn
    return covariance


def scores(model: Model, settings: Settings, split: str, draws: int) -> tuple[float, float]:
    """Mean NLL and KL of a split over so many posterior draws."""
    x = points(settings, split)
    seed_everything("points", 0)
    terms = [elbo_terms(x, model(x, posterior_sample)) for _ in range(draws)]
    return tuple(float(torch.stack([getattr(t, name).mean() for t in terms]).mean()) for name in ("nll", "kl"))  # type: ignore[return-value]


def points(settings: Settings, split: str) -> Tensor:
    """A whole split, (n, 2, 1, 1)."""
    dump = open_dump(settings.data)
    images = Images(dump.split(split), make_preprocess(settings.data, dump.n_levels))
    return images.at(images.indices, ALONE.device)


def samples(model: Model) -> Any:
    """p(x|z) at z drawn from the prior."""
    seed_everything("point samples", 0)
    return model(None, prior_sample([1.0]), n=N_SAMPLES).likelihood


@torch.no_grad()
def row(folder: str, draws: int, figures: Path | None) -> tuple[str, ...]:
    """What the table says of a run; its scatter plot, if asked for."""
    run = load_run(folder, device="cpu")
    settings, model = run.settings, run.model
    (nll, kl), heldout = scores(model, settings, "test", draws), sum(scores(model, settings, "heldout", draws))
    likelihood = samples(model)
    drawn, means = likelihood.sample(), likelihood.mean()
    found, true = np.cov(drawn.flatten(1).T.double().numpy()), true_covariance(settings.data.dataset)
    error = float((np.abs(found - true) / np.sqrt(np.outer(np.diag(true), np.diag(true)))).max())
    if figures is not None:
        data = points(settings, "train")[:N_SHOWN]
        save_point_samples(figures / f"{settings.run.name}.png", data, drawn[:N_SHOWN], means[:N_SHOWN])
    shown = " ".join(f"{value:.2f}" for value in (found[0, 0], found[0, 1], found[1, 1]))
    numbers = (f"{value:.4f}" for value in (nll + kl, nll, kl, heldout))
    return (settings.run.name, *numbers, shown, f"{error:.1%}")


def main() -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.points", description=__doc__)
    parser.add_argument("runs", nargs="+", help="names or folders of trained runs")
    parser.add_argument("--draws", type=int, default=50, help="posterior draws (default 50)")
    parser.add_argument("--figures", type=Path, help="folder for a scatter plot of each")
    options = parser.parse_args()
    for cells in (
        COLUMNS,
        ("---",) * len(COLUMNS),
        *(row(run, options.draws, options.figures) for run in options.runs),
    ):
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
