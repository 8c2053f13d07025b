"""The inference modes: one line each."""

from collections.abc import Callable
from dataclasses import dataclass

from lvae_torch.synthesis import analysis, decoding, encoding, generation, layer_inspection, likelihood, reconstruction
from lvae_torch.synthesis.session import Session


@dataclass(frozen=True)
class Mode:
    """What to run, and whether it reads images."""

    run: Callable[[Session], dict[str, object]]
    reads_images: bool


MODES: dict[str, Mode] = {
    "reconstruction": Mode(reconstruction.run, reads_images=True),
    "generation": Mode(generation.run, reads_images=False),
    "encoding": Mode(encoding.run, reads_images=True),
    "decoding": Mode(decoding.run, reads_images=False),
    "likelihood": Mode(likelihood.run, reads_images=True),
    "analysis": Mode(analysis.run, reads_images=True),
    "layer_inspection": Mode(layer_inspection.run, reads_images=False),
}
