"""Interpolation: decodes points on the straight line between the posterior means of two images."""

import torch

from lvae_torch.data.order import spread
from lvae_torch.models.sources import between, given_latents, posterior_mean
from lvae_torch.synthesis.session import Session
from lvae_torch.synthesis.showing import save_shown

N_ROWS, N_STEPS = 10, 10


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """Write ``interpolation.png``: a row for each of 10 pairs of images, with 10 weights from 0 to 1.

    Each row begins with the reconstruction of one image and ends with that of the other.
    """
    assert session.latent_shapes  # raises CfgError if there are none
    if not session.processes.is_main:
        return {}
    indices = session.images.indices
    chosen = indices[spread(len(indices), 2 * N_ROWS)]
    n = len(chosen) // 2
    latents = session.model(session.x_at(chosen, "interpolation"), posterior_mean).latents
    weights = torch.linspace(0, 1, N_STEPS).tolist()
    shown = []
    for weight in weights:
        halfway = [between(latent.z[:n], latent.z[n : 2 * n], weight) for latent in latents]
        shown.append(session.picture_of(session.model(None, given_latents(halfway), n=n).likelihood, "interpolation"))
    save_shown(session.out / "interpolation.png", torch.stack(shown, dim=1).flatten(0, 1), N_STEPS)
    pairs = zip(chosen[:n].tolist(), chosen[n : 2 * n].tolist(), strict=True)
    return {"pairs": [list(pair) for pair in pairs], "weights": weights}
