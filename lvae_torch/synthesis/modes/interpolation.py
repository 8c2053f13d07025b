"""Interpolation: decodes points on the straight line between the posterior means of two images."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lvae_torch.data.order import spread
from lvae_torch.errors import CfgError
from lvae_torch.models.sources import between, given_latents, posterior_mean
from lvae_torch.synthesis.session import Session
from lvae_torch.synthesis.showing import save_shown

N_ROWS, N_STEPS = 10, 10


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """Write ``interpolation.png``: a row for each of 10 pairs of images, with 10 weights from 0 to 1.

    Each row begins with the reconstruction of one image and ends with that of the other. A class-conditional model is
    told the class of the nearer one.

    Raises:
        CfgError: if there is one image only.
    """
    assert session.latent_shapes  # raises CfgError if there are none
    if not session.processes.is_main:
        return {}
    indices = session.images.indices
    chosen = indices[spread(len(indices), 2 * N_ROWS)]
    n = len(chosen) // 2
    if n == 0:
        raise CfgError("interpolation goes between two images, and there is one. Raise [synthesis] limit.")
    first, second = (_means(session, ends) for ends in (chosen[:n], chosen[n : 2 * n]))
    weights = torch.linspace(0, 1, N_STEPS).tolist()
    shown = []
    for weight in weights:
        mixed = [between(one, other, weight) for one, other in zip(first, second, strict=True)]
        nearer = chosen[n : 2 * n] if weight > 0.5 else chosen[:n]  # as of codes: a class cannot be mixed
        shown.append(_decoded(session, mixed, nearer))
    save_shown(session.out / "interpolation.png", torch.stack(shown, dim=1).flatten(0, 1), N_STEPS)
    pairs = zip(chosen[:n].tolist(), chosen[n : 2 * n].tolist(), strict=True)
    return {"pairs": [list(pair) for pair in pairs], "weights": weights}


def _means(session: Session, indices: np.ndarray) -> list[Tensor]:
    """Posterior means of images of the split, one (b, ...) per layer, top layer first."""
    passes = [
        session.passed(session.x_at(piece, "interpolation", int(piece[0])), piece, posterior_mean).latents
        for piece in session.pieces(indices)
    ]
    return [torch.cat([latent.z for latent in layer]) for layer in zip(*passes, strict=True)]


def _decoded(session: Session, z: Sequence[Tensor], indices: np.ndarray) -> Tensor:
    """Pictures (b, C, H, W) of latents, of the classes of images of the split."""
    shown = []
    for k, piece in zip(session.pieces(np.arange(len(indices))), session.pieces(indices), strict=True):
        source = session.of_images(given_latents([layer[k] for layer in z]), piece)
        shown.append(
            session.picture_of(session.model(None, source, n=len(piece)).likelihood, "interpolation", int(k[0]))
        )
    return torch.cat(shown)
