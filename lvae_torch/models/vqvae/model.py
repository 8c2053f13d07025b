"""The VQ-VAE (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937): encodes images as small maps of codes.

The one latent layer holds codes. The posterior is deterministic and the prior uniform, so the KL is always hw log K.
A better prior is a separate model, trained on the codes (see ``pixelcnn``).
Shapes: B batch, W width, D channels of a code, h = H/4 and w = W/4.
"""

from math import prod

from torch import Tensor, nn

from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions.codes import CertainCodes, UniformCodes
from lvae_torch.distributions.precision import widened
from lvae_torch.errors import CfgError
from lvae_torch.models.contract import Features, Latent, Model, Output, Source, batch_size
from lvae_torch.models.likelihoods.heads import Head
from lvae_torch.models.vqvae.quantizer import Quantizer

REDUCTION = 4  # the map of codes has 1/4 of the image's height and width


class PreActivatedBlock(nn.Module):
    """x + BN ReLU 3x3 BN ReLU 1x1, same shape in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, kernel_size=3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, kernel_size=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def encoder(channels: int, width: int, n_blocks: int, z_channels: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, D, h, w), with a last 1x1 convolution if D differs from the width."""
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel_size=4, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, kernel_size=4, stride=2, padding=1),
        *(PreActivatedBlock(width) for _ in range(n_blocks)),
        *([] if z_channels == width else [nn.Conv2d(width, z_channels, kernel_size=1)]),
    )


def decoder(z_channels: int, width: int, n_blocks: int, n_params: int) -> nn.Sequential:
    """(B, D, h, w) -> (B, n_params, H, W)."""
    return nn.Sequential(
        *([] if z_channels == width else [nn.Conv2d(z_channels, width, kernel_size=1)]),
        *(PreActivatedBlock(width) for _ in range(n_blocks)),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, width, kernel_size=4, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, n_params, kernel_size=4, stride=2, padding=1),
    )


class VQVAE(Model):
    """Encoder, quantizer, decoder."""

    blocks = (PreActivatedBlock,)

    def __init__(self, image_shape: ImageShape, width: int, n_blocks: int, quantizer: Quantizer, head: Head) -> None:
        super().__init__(image_shape, head.in_bits)
        self.encoder = encoder(image_shape[0], width, n_blocks, quantizer.z_channels)
        self.quantizer = quantizer
        self.decoder = decoder(quantizer.z_channels, width, n_blocks, head.n_params)
        self.likelihood = head.likelihood

    def encode(self, x: Tensor) -> Features:
        """z_e, (B, D, h, w).

        Raises:
            ValueError: if x has another shape than the model was built for.
        """
        self.check_images(x)
        return (widened(self.encoder(2 * x - 1)),)  # half precision cannot separate close codes

    def decode(self, features: Features | None, source: Source, n: int | None = None) -> Output:
        """Choose codes by the source and decode them; without features it generates ``n`` images."""
        if features is not None:
            return self._decode_encoded(features[0], source)
        weight = next(self.decoder.parameters())
        p = self._prior(weight.new_zeros(batch_size(features, n), *self.latent_shapes()[0]))
        z = source(0, p, None)  #                                                           (B, 1, h, w)
        z_q = self.quantizer.vectors(z.long())  #                                           (B, D, h, w)
        return Output(self.likelihood(self.decoder(z_q.to(weight.dtype))), (Latent(z, p),))

    def _decode_encoded(self, z_e: Tensor, source: Source) -> Output:
        codes = self.quantizer.codes(z_e)  #                                                (B, 1, h, w)
        p, q = self._prior(codes), CertainCodes(codes, self.quantizer.n_codes)
        z = source(0, p, q)  #                                                              (B, 1, h, w)
        z_q = self.quantizer.vectors(z.long())  #                                           (B, D, h, w)
        penalties = {name: prod(self.image_shape) * term for name, term in self.quantizer.penalties(z_e, z_q).items()}
        params = self.decoder(self.quantizer.through(z_e, z_q))
        if self.training:
            self.quantizer.learn(z_e, codes)  # last, so that this pass uses the old codebook
        return Output(self.likelihood(params), (Latent(z, p, q),), penalties)

    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(1, h, w): one code for each position."""
        _, height, width = self.image_shape
        return ((1, height // REDUCTION, width // REDUCTION),)

    @property
    def starts_from_data(self) -> bool:
        """Whether the settings ask for codes that begin at the data."""
        return self.quantizer.starts_at_data

    def initialize(self, x: Tensor, bound: float | None = None, labels: Tensor | None = None) -> None:
        """Put the codes at cluster centres of the encodings of one batch x, (B, C, H, W), if ``start = k_means``.


        Raises:
            CfgError: if the batch has fewer encodings than there are codes.
        """
        if not self.quantizer.starts_at_data:
            return
        was_training = self.training
        self.train()
        try:
            self.quantizer.initialize(self.encode(x)[0])
        except ValueError as error:
            raise CfgError(f"[model] start = k_means: {error} Raise [train] batch_size, or lower n_codes.") from error
        finally:
            self.train(was_training)

    def _prior(self, like: Tensor) -> UniformCodes:
        return UniformCodes(like, self.quantizer.n_codes)
