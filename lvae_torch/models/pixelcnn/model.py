"""PixelCNN, plain and gated (van den Oord et al. 2016): p(x) is a product over positions, for codes or few levels.

There are no latents: p(x) is exact, and -ELBO is -log p(x). Without x, the model returns a likelihood from which
images are drawn position by position.
Shapes: B batch, E embedding, K levels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributions.categorical import Categorical, codes_of
from lvae_torch.distributions.noise import uniform_like
from lvae_torch.models.contract import Features, Model, Output, Source, batch_size
from lvae_torch.models.pixelcnn.causal import drawing
from lvae_torch.models.pixelcnn.networks import Above, GatedLayer, GatedNetwork, PlainBlock, PlainNetwork

Choose = Callable[[int, int, Categorical], Tensor]  # (row, column, p of its code) -> code, int64 (n, 1, 1, 1)


class PixelCNN(Model):
    """An embedding of levels, and a network that sees only earlier positions."""

    blocks = (PlainBlock, GatedLayer)

    def __init__(
        self, image_shape: ImageShape, n_levels: int, n_embedding: int, network: PlainNetwork | GatedNetwork
    ) -> None:
        """``image_shape`` is (1, H, W): images have one channel."""
        super().__init__(image_shape, in_bits=True)
        self.n_levels = n_levels
        self.embedding = nn.Embedding(n_levels, n_embedding)
        self.network = network

    def encode(self, x: Tensor) -> Features:
        """Logits of each position given the earlier ones, (B, K, H, W).

        Raises:
            ValueError: if x has another shape than the model was built for.
        """
        self.check_images(x)
        return (self.network(self.embedded(codes_of(x, self.n_levels))),)

    def decode(self, features: Features | None, source: Source, n: int | None = None) -> Output:
        """p(x) at the encoded x, or a distribution to draw ``n`` images from; the source is not used."""
        if features is not None:
            return Output(Categorical.from_params(features[0], self.n_levels), ())
        return Output(Undrawn(self, batch_size(features, n)), ())

    def latent_shapes(self) -> tuple[()]:
        """Empty: the model has no latents."""
        return ()

    def embedded(self, codes: Tensor) -> Tensor:
        """Codes (B, 1, H, W) -> (B, E, H, W)."""
        embedded: Tensor = self.embedding(codes.squeeze(1))
        return embedded.movedim(-1, 1)

    def draw(self, n: int, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """Draw ``n`` images x, (n, 1, H, W).

        Args:
            noise: uniform numbers of that shape to draw from.
            temperature: divides the logits.
        """
        weight = self.embedding.weight
        u = uniform_like(weight.new_empty(n, *self.image_shape)) if noise is None else noise

        def choose(row: int, column: int, p: Categorical) -> Tensor:
            here = (..., slice(row, row + 1), slice(column, column + 1))
            return codes_of(p.sample(u[here], temperature), self.n_levels)

        return self.in_order(n, choose).to(weight.dtype) / (self.n_levels - 1)

    @torch.no_grad()
    def in_order(self, n: int, choose: Choose) -> Tensor:
        """``n`` images of codes, int64 (n, 1, H, W), chosen position by position; each position is computed once."""
        _, height, width = self.image_shape
        codes = torch.zeros(n, 1, height, width, dtype=torch.int64, device=self.embedding.weight.device)
        unknown = self.embedded(codes[:, :, :1, :1])
        above: Above = None
        with drawing(self.network, width) as place:
            for row, column in product(range(height), range(width)):
                place.row, place.first = row, column
                here = (..., slice(row, row + 1), slice(column, column + 1))
                logits = self.network.logits_at(unknown, column, above)
                codes[here] = choose(row, column, Categorical.from_params(logits, self.n_levels))
                self.network.settle(self.embedded(codes[here]))
                if column == width - 1:
                    place.first = 0
                    above = self.network.settle_row(self.embedded(codes[:, :, row : row + 1]))
        return codes


@dataclass(frozen=True)
class Undrawn:
    """p(x) from which images are still to be drawn."""

    model: PixelCNN
    n: int

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats per image, (B,); x is (B, 1, H, W), with values on the levels."""
        return Categorical.from_params(self.model.encode(x)[0], self.model.n_levels).log_prob(x)

    def in_order(self, choose: Choose) -> Tensor:
        """Codes, int64 (n, 1, H, W), as ``choose`` chooses them, each given those before it."""
        return self.model.in_order(self.n, choose)

    def mean(self) -> Tensor:
        """A draw, (n, 1, H, W), because the mean over all images is not an image."""
        return self.sample()

    def mode(self) -> Tensor:
        """A draw, (n, 1, H, W), because the most probable image is not known."""
        return self.sample()

    def sample(self, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """A draw, (n, 1, H, W), from uniform ``noise`` of that shape if given; ``temperature`` divides the logits."""
        return self.model.draw(self.n, noise, temperature)
