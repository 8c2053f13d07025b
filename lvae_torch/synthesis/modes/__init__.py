"""The inference modes: one line each."""

from collections.abc import Callable
from dataclasses import dataclass

from lvae_torch.synthesis.modes import (
    analysis,
    decoding,
    div_stats,
    encoding,
    generation,
    interpolation,
    layer_inspection,
    likelihood,
    progressive,
    reconstruction,
)
from lvae_torch.synthesis.session import Session


@dataclass(frozen=True)
class Mode:
    """What to run, and whether it reads images."""

    run: Callable[[Session], dict[str, object]]
    reads_images: bool
    of_training: bool = False
    """Whether those of training, where ``[synthesis] split`` does not say."""
    draws_codes: bool = False
    """Whether ``[synthesis] prior_run`` is for it."""


MODES: dict[str, Mode] = {
    "reconstruction": Mode(reconstruction.run, reads_images=True),
    "generation": Mode(generation.run, reads_images=False, draws_codes=True),
    "encoding": Mode(encoding.run, reads_images=True),
    "decoding": Mode(decoding.run, reads_images=False),
    "likelihood": Mode(likelihood.run, reads_images=True),
    "analysis": Mode(analysis.run, reads_images=True),
    "interpolation": Mode(interpolation.run, reads_images=True),
    "layer_inspection": Mode(layer_inspection.run, reads_images=False),
    "div_stats": Mode(div_stats.run, reads_images=True, of_training=True),
    "progressive": Mode(progressive.run, reads_images=True),
}
