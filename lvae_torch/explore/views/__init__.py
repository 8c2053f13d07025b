"""The views of the page: each answers one kind of request with a ``Look``, and one file each.

What a view computes and the Python lines that it tells stand side by side; a test runs the lines and compares pixels.
"""

from collections.abc import Callable, Mapping
from typing import Any

from lvae_torch.explore.look import Look
from lvae_torch.explore.requests import Latents, Mix, Reconstruction, Samples, View
from lvae_torch.explore.stage import Stage
from lvae_torch.explore.views.latents import latents
from lvae_torch.explore.views.mix import mix
from lvae_torch.explore.views.reconstruction import reconstruction
from lvae_torch.explore.views.samples import samples

VIEWS: Mapping[str, tuple[type[View], Callable[[Stage, Any], Look]]] = {
    "samples": (Samples, samples),
    "reconstruction": (Reconstruction, reconstruction),
    "mix": (Mix, mix),
    "latents": (Latents, latents),
}
"""The type of a view's requests, and what answers them."""
