"""Bits-back coding of one batch (Townsend et al. 2019), for models whose latents depend on one another.

To encode x: pop z from the stack as if it had been pushed under q(z | x); push x under p(x | z), push z under p(z).
The stack has grown by -log p(x, z) + log q(z | x), which is -ELBO on average. To decode, do the opposite in the
opposite order: pop z and x, then push z under q(z | x), which gives back the very bits that were popped.

Both directions run the same two passes of the model, each with the same inputs: ``_inferred`` sees x, and only its
posteriors are coded with; ``_generated`` does not, and its priors and likelihood are coded with. So nothing hangs on
whether priors come out alike with and without x, to the last digit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from lvae_torch.compression.latents import Grid, Integers, coded_posterior, coded_prior
from lvae_torch.compression.pixels import PixelCode
from lvae_torch.compression.rounding import Rounding
from lvae_torch.compression.stack import Coder, Record, Stack
from lvae_torch.models.contract import Model


class ExhaustedError(Exception):
    """The stack has too few bits for the posterior of a batch."""


@dataclass(frozen=True)
class Codec:
    """A model in evaluation mode, and how its latents are cut into integers."""

    model: Model
    n_levels: int
    """Levels of a pixel."""
    grids: Sequence[Grid]
    """Of each layer, top first."""
    device: torch.device
    dtype: torch.dtype
    """Of x, as the model's weights are."""
    rounding: Rounding

    @torch.no_grad()
    def encode(self, levels: np.ndarray, stack: Stack, seed: int) -> None:
        """Push a batch, integers (n, C, H, W); ``seed`` is of how the stack is stirred before.

        Raises:
            ExhaustedError: if the stack has too few bits; it is as it was then.
        """
        before = stack.snapshot()
        stack.stir(self._n_stirred(len(levels)), seed)
        known = torch.from_numpy(levels.astype(np.int64)).to(self.device)
        integers = self._inferred(known, stack.pop, self._unknown)
        if stack.is_overdrawn:
            stack.restore(before)
            raise ExhaustedError
        record = Record()
        self._generated(len(levels), record, integers, known)
        record.push(stack)

    @torch.no_grad()
    def decode(self, n: int, stack: Stack, seed: int) -> np.ndarray:
        """Pop a batch of ``n`` images, int64 (n, C, H, W); the stack is left as it was before they were pushed."""
        integers = self._unknown
        levels = self._generated(n, stack.pop, integers, None)
        record = Record()
        self._inferred(levels, record, integers)
        record.push(stack)
        stack.stir(self._n_stirred(n), seed)
        result: np.ndarray = levels.cpu().numpy()
        return result

    def _n_stirred(self, n: int) -> int:
        """Words that hold what ``n`` posteriors take, about: 16 bits for each latent."""
        return n * sum(map(prod, self.model.latent_shapes())) // 2

    @property
    def _unknown(self) -> Integers:
        return [None] * len(self.grids)

    def _inferred(self, levels: Tensor, coder: Coder, integers: Integers) -> Integers:
        """The pass that sees x: codes the integers under the posteriors."""
        if self.grids:
            features = self.model.encode(self.scaled(levels))
            self.model.decode(features, coded_posterior(self.grids, coder, self.rounding, integers))
        return integers

    def _generated(self, n: int, coder: Coder, integers: Integers, levels: Tensor | None) -> Tensor:
        """The pass that does not: codes the integers under the priors, and the levels, which it returns."""
        out = self.model.decode(None, coded_prior(self.grids, coder, self.rounding, integers), n)
        return PixelCode(self.n_levels, self.rounding).code(out.likelihood, coder, levels)

    def scaled(self, levels: Tensor) -> Tensor:
        """Levels -> x in [0, 1], always laid out alike in memory: convolutions compute other last digits otherwise."""
        x = torch.empty(levels.shape, dtype=self.dtype, device=self.device)
        return x.copy_(levels).div_(self.n_levels - 1)
