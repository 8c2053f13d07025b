"""Progressive reconstruction: takes the top k layers from the posterior of an image, and the rest from the prior.

A row shows an image, then its reconstruction for k = 1, and so on up to all layers.
"""

import numpy as np
import torch

from lvae_torch.data.order import spread
from lvae_torch.models.contract import Source
from lvae_torch.models.sources import by_layer, posterior_sample, prior_sample
from lvae_torch.reporting.grids import image_grid, save_png
from lvae_torch.synthesis.session import Session
from lvae_torch.synthesis.similarity import psnr
from lvae_torch.synthesis.temperatures import per_layer

MOST_COLUMNS = 12  # reconstructions per row; deeper models show 12 values of k, evenly spread


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """Write ``progressive.png``, with one row for each of ``columns`` images of the split."""
    options, n_layers = session.options, len(session.latent_shapes)
    temperatures = per_layer(options.temperature, n_layers)
    if not session.processes.is_main:
        return {}
    known = known_layers(n_layers)
    indices = session.images.indices
    chosen = indices[spread(len(indices), options.columns)]
    rows, alike = [], []
    for row in chosen.tolist():
        x, shown = _row(session, row, [first_layers(k, n_layers, temperatures) for k in known])
        rows += [x, *shown]
        alike.append([float(psnr(x, picture).clamp(max=100.0)) for picture in shown])
    save_png(session.out / "progressive.png", image_grid(torch.cat(rows), 1 + len(known)))
    return {
        "images": chosen.tolist(),
        "known_layers": known,
        "psnr": np.mean(alike, axis=0).tolist(),
        "temperatures": list(temperatures),
    }


def known_layers(n_layers: int) -> list[int]:
    """The values of k in a row."""
    return [int(i) + 1 for i in spread(n_layers, MOST_COLUMNS)]


def first_layers(k: int, n_layers: int, temperatures: tuple[float, ...]) -> Source:
    """A source that draws from q in the top k layers and from p below."""
    return by_layer([posterior_sample] * k + [prior_sample(temperatures)] * (n_layers - k))


def _row(session: Session, row: int, sources: list[Source]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """An image and its reconstructions, which share the noise of each layer and differ only in k."""
    shown = []
    for source in sources:
        x = session.x_at(np.array([row]), "progressive", row)
        shown.append(session.picture_of(session.passed(x, np.array([row]), source).likelihood, row))
    return x, shown
