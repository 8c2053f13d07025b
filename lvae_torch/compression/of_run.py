"""The compressor of a trained run, which both commands use."""

from lvae_torch.compression.compressor import Compressor
from lvae_torch.errors import CfgError
from lvae_torch.trained.run import TrainedRun


def compressor_of(run: TrainedRun) -> Compressor:
    """The run's model, with its settings as a part of its fingerprint.

    Raises:
        CfgError: if the model has no probability of pixel levels.
    """
    if not run.model.in_bits:
        raise CfgError(
            f"{run.name}: p(x|z) is no probability of pixel levels, so its images cannot be compressed without loss. "
            "Of a VQ-VAE the codes can: write them with [synthesis] codes_to, and compress that dump with a PixelCNN."
        )
    return Compressor(run.model, run.trained_on.n_levels, run.settings.model.model_dump_json())
