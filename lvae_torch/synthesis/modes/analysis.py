"""Analysis: figures of the learning curve, of the KL and units per layer, and of the classes in each layer."""

import re
from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.classes import class_told
from lvae_torch.data.order import spread
from lvae_torch.data.shapes import POINT
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.elbo.units import Units, UnitStatistics
from lvae_torch.models.contract import Likelihood, Shape, of_classes
from lvae_torch.models.sources import posterior_sample, prior_sample
from lvae_torch.reporting.figures import draw_bars, draw_clouds, draw_curves, draw_unit_history
from lvae_torch.reporting.history import History
from lvae_torch.synthesis.session import Session
from lvae_torch.synthesis.showing import save_pairs, save_point_samples, save_shown

N_POINTS = 2000  # images in scatter plots, at most
MOST_BYTES = 2**30  # of the latents of these images, which are in memory together
N_PICTURES = 100  # samples, and pairs of image and reconstruction


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """PNGs: learning curve, KL of units over time, KL and units per layer, classes by layer, samples."""
    units = _units(session)
    if not session.processes.is_main:
        return {}
    notes = _draw_history(session)
    notes += _draw_layers(session, units) if units.kl else ["the model has no latents: there are no figures of them"]
    _draw_pictures(session)
    return {
        "kl_per_layer": [float(layer.sum()) for layer in units.kl],
        "active_units": list(units.active()),
        "informative_units": list(units.informative()),
        "units": [layer.numel() for layer in units.kl],
        **({"notes": notes} if notes else {}),
    }


def _draw_layers(session: Session, units: Units) -> list[str]:
    kl = [float(layer.sum()) for layer in units.kl]
    labels = _layer_names(len(kl))
    title = session.identity["run"]
    draw_bars(session.out / "kl_per_layer.png", {"KL": kl}, labels, "nats per image", f"{title}: KL(q||p) per layer")
    counts = {"posterior mean varies by > 0.01": units.active(), "KL > 0.01 nats": units.informative()}
    draw_bars(session.out / "units.png", counts, labels, "units", f"{title}: latent units in use")
    return _draw_classes(session, labels)


def _units(session: Session) -> Units:
    statistics = UnitStatistics(session.model.latent_shapes(), session.processes.device)
    for _, indices, x in session.batches(session.options.batch_size, "analysis"):
        statistics.update(session.passed(x, indices, posterior_sample).latents)
    return statistics.result(session.processes.sum_)


def _layer_names(n: int) -> list[str]:
    return [f"z_{n - i}" + (" (top)" if i == 0 and n > 1 else "") for i in range(n)]


def _draw_history(session: Session) -> list[str]:
    """Draw the figures of the training log; return notes on missing ones."""
    log = session.run_folder / "metrics.jsonl"
    if not log.exists():  # a bundle has none, nor has a run of another program before it trains on
        return ["there is no metrics.jsonl: no learning curve and no history of units"]
    history = History.read(log)
    per_unit, x_label = session.steps_per_epoch, "epochs"
    curves = {
        name: (steps / per_unit, values)
        for name, key in (("train, running", "train/nelbo"), (session.val_split, "val/nelbo"))
        for steps, values in [history.curve(key)]
    }
    title = session.identity["run"]
    draw_curves(session.out / "learning_curve.png", curves, x_label, "-ELBO, nats per image", title)
    shapes, layers = session.model.latent_shapes(), {}
    if not shapes:
        return []
    for i, name in enumerate(_layer_names(len(shapes))):
        steps, values = history.curve(f"val/kl_units/{i:02d}")
        if len(steps):
            layers[name] = (steps / per_unit, np.array(values, dtype=float))
    if not layers:
        return ["no KL of single units was logged (layers of more than 1,024 units, or an older run)"]
    draw_unit_history(session.out / "kl_units.png", layers, x_label, f"{title}: KL of each unit")
    return []


def n_points(shapes: Sequence[Shape]) -> int:
    """Images whose latents of these shapes, float32, are in memory together."""
    return max(2, min(N_POINTS, MOST_BYTES // (4 * sum(map(prod, shapes)))))


def _draw_classes(session: Session, labels: list[str]) -> list[str]:
    indices, n = session.images.indices, n_points(session.latent_shapes)
    chosen = indices[spread(len(indices), n)]
    notes = [f"classes.png shows {n} images, whose latents take 1 GiB"] if n < min(N_POINTS, len(indices)) else []
    drawn = []
    for j, part in enumerate(session.pieces(chosen)):
        latents = session.passed(session.x_at(part, "classes", j), part, posterior_sample).latents
        drawn.append([latent.z.flatten(1).cpu() for latent in latents])
    clouds = {
        name: two_principal_components(torch.cat(layer))
        for name, layer in zip(labels, zip(*drawn, strict=True), strict=True)
    }
    title = f"{session.identity['run']}: samples of q, two components"
    if session.labels is None:
        draw_clouds(session.out / "classes.png", clouds, None, title)
        return [*notes, "the dump has no labels: classes.png is not coloured"]
    for name, classes, called in classes_by_column(session.labels[chosen], session.label_names):
        told = f"{title}, {name}" if name else title
        draw_clouds(session.out / f"classes{'_' * bool(name)}{name}.png", clouds, classes, told, called)
    return notes


def classes_by_column(labels: np.ndarray, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """Those that occur, counted from 0, (n,), and what each is called: of all images, or of each column of labels, with
    a name that a file may have."""
    if labels.ndim == 1:
        found, classes = np.unique(labels, return_inverse=True)
        yield "", classes, [class_told(number, names) for number in found.tolist()]
        return
    for k, column in enumerate(labels.T):
        name = re.sub(r"[^A-Za-z0-9_-]", "_", names[k]) if k < len(names) else str(k)
        found, classes = np.unique(column, return_inverse=True)
        yield name, classes, list(map(str, found.tolist()))


def two_principal_components(z: Tensor) -> np.ndarray:
    """(n, D) -> (n, 2): the coordinates of largest variance; 0 if there are fewer than two."""
    z = z.double().nan_to_num(posinf=0.0, neginf=0.0)  # so that a diverged model can be drawn
    centred = z - z.mean(dim=0)
    # The matrix of scalar products is n x n for any number of units.
    variances, directions = torch.linalg.eigh(centred @ centred.T)
    scores = directions[:, -2:].flip(1) * variances[-2:].flip(0).clamp(min=0).sqrt()
    rank_one = scores.new_zeros(len(z), 2)
    rank_one[:, : min(2, z.shape[1])] = scores[:, : min(2, z.shape[1])]
    return rank_one.numpy()


def _draw_pictures(session: Session) -> None:
    is_points = session.model.image_shape == POINT
    n_pictures = N_POINTS if is_points else N_PICTURES
    indices = session.images.indices
    chosen = indices[spread(len(indices), n_pictures)]
    pairs = []
    for piece in session.pieces(chosen):
        x = session.x_at(piece, "analysis pairs", int(piece[0]))
        pairs.append((x, session.picture_of(session.passed(x, piece, posterior_sample).likelihood)))
    x, shown = (torch.cat(images) for images in zip(*pairs, strict=True))
    save_pairs(session.out / "reconstructions.png", x, shown, 10)
    samples, picture = _samples(session, n_pictures), session.out / "samples.png"
    if is_points:
        drawn, means = (torch.cat(points) for points in zip(*((p.sample(), p.mean()) for p in samples), strict=True))
        save_point_samples(picture, x, drawn, means)
    else:
        save_shown(picture, torch.cat([session.picture_of(likelihood) for likelihood in samples]), 10)


def _samples(session: Session, n: int) -> Iterator[Likelihood]:
    """p(x|z) of ``n`` draws from the prior at full width, a piece at a time."""
    seed_everything("analysis pictures", session.options.seed)
    source = prior_sample([1.0] * len(session.model.latent_shapes()))
    for piece in session.pieces(np.arange(n)):
        told = of_classes(source, session.chosen(piece.tolist()))
        yield session.model(None, told, n=len(piece)).likelihood
