"""The ``[model]`` section of ``family = vqvae``, and the model it describes."""

from collections.abc import Iterator
from typing import Literal

from lvae_torch.cfg.section import Count, NonNegative, PositiveInt, TupleOf
from lvae_torch.data.shapes import ImageShape
from lvae_torch.models.likelihoods.heads import (
    GaussianStd,
    LikelihoodName,
    LikelihoodSection,
    Options,
    likelihood_head,
    misplaced_std,
)
from lvae_torch.models.vqvae.codebook import Codebook, EmaCodebook, LearnedCodebook
from lvae_torch.models.vqvae.model import REDUCTION, VQVAE
from lvae_torch.models.vqvae.quantizer import (
    FiniteScalarQuantizer,
    Quantizer,
    VectorQuantizer,
    rotation_trick,
    straight_through,
)

THROUGH = {"straight_through": straight_through, "rotation": rotation_trick}
OF_A_CODEBOOK = ("n_codes", "codebook", "commitment", "restart_after", "start", "gradient")


class VQVAESection(LikelihoodSection):
    """[model]: a VQ-VAE with one map of codes, whose sides are a quarter of the image's."""

    family: Literal["vqvae"] = "vqvae"
    """Kind of model; the other keys of this section depend on it."""
    width: PositiveInt = 256
    """Channels of every feature map, and of each code."""
    residual_blocks: PositiveInt = 2
    """Number of residual blocks in the encoder and in the decoder."""
    n_codes: PositiveInt = 128
    """Number of codes in the codebook; at least 2."""
    codebook: Literal["learned", "ema"] = "learned"
    """How codes move: learned by gradients, or ema, moving averages (decay 0.99) of their encodings."""
    commitment: NonNegative = 1.0
    """Weight of the penalty that pulls encodings towards their codes; the codebook penalty has weight 1."""
    restart_after: Count = 0
    """A code unused for this many steps restarts at an encoding of the batch; 0 for never."""
    start: Literal["uniform", "k_means"] = "uniform"
    """Initial codes: uniform in [-1/n_codes, 1/n_codes], or cluster centres of the first batch's encodings."""
    gradient: Literal["straight_through", "rotation"] = "straight_through"
    """How the decoder's gradient passes the codes: unchanged, or rotated and scaled as from encoding to code."""
    levels: TupleOf[PositiveInt] = ()
    """Finite scalar quantisation instead of a codebook: levels of each channel, for example [8, 4, 4] for 128 codes."""
    likelihood: LikelihoodName = "recon_sse"
    """p(x | z). recon_sse is a sum of squared errors on [-1, 1], which has no bits per dimension."""
    std: GaussianStd = "per_output"
    """Std of gaussian: per_output from the network, one learned for all, the optimal one per batch, or a number."""
    n_mixtures: PositiveInt = 10
    """Components of the discretized mixture of logistics."""

    def problems(self) -> Iterator[str]:
        if self.levels and min(self.levels) < 2:
            yield f"levels = {list(self.levels)}: each channel needs at least 2"
        if self.levels and (given := [key for key in OF_A_CODEBOOK if key in self.given_beside_levels]):
            yield f"levels needs no codebook; leave {', '.join(given)} out"
        if self.n_codes < 2:
            yield "n_codes is 1; an image needs at least 2 to choose from"
        yield from misplaced_std(self.std, self.likelihood)

    @property
    def given_beside_levels(self) -> set[str]:
        """Keys of the codebook that differ from their defaults."""
        fields = type(self).model_fields
        return {key for key in OF_A_CODEBOOK if getattr(self, key) != fields[key].default}

    def misfits(self, image_shape: ImageShape, n_levels: int) -> Iterator[str]:
        yield from super().misfits(image_shape, n_levels)
        _, height, width = image_shape
        if height % REDUCTION or width % REDUCTION:
            yield (
                f"family = vqvae needs images whose sides divide by {REDUCTION}, but these are {height}x{width}; use a "
                "dataset whose images are padded or resized"
            )

    def make(self, image_shape: ImageShape, n_levels: int) -> VQVAE:
        options = Options(self.n_mixtures, std=self.std)
        head = likelihood_head(self.likelihood, image_shape[0], n_levels, options)
        return VQVAE(image_shape, self.width, self.residual_blocks, _quantizer(self), head)


def _quantizer(section: VQVAESection) -> Quantizer:
    if section.levels:
        return FiniteScalarQuantizer(section.levels)
    kinds: dict[str, type[Codebook]] = {"learned": LearnedCodebook, "ema": EmaCodebook}
    codebook = kinds[section.codebook](section.n_codes, section.width, section.restart_after)
    return VectorQuantizer(codebook, section.commitment, THROUGH[section.gradient], section.start == "k_means")
