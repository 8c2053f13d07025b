"""What passes of a model give, as pictures and joined over batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lvae_torch.distributions.codes import CertainCodes
from lvae_torch.distributions.gaussian import DiagonalGaussian
from lvae_torch.models.contract import Output, Posterior

Picture = Literal["mean", "mode", "sample"]
"""The picture of p(x | z): its mean, its mode, or a sample."""


@dataclass(frozen=True)
class Elbo:
    """The terms of the ELBO at one posterior sample of each image, in nats."""

    nll: Tensor  # (B,)    -log p(x | z)
    kl: Tensor  # (B, L)  KL(q || p) of each layer, top layer first

    @property
    def elbo(self) -> Tensor:
        """Lower bound on log p(x), (B,)."""
        return -self.nll - self.kl.sum(dim=1)


def shown(out: Output, show: Picture) -> Tensor:
    match show:
        case "mean":
            return out.likelihood.mean()
        case "mode":
            return out.likelihood.mode()
        case "sample":
            return out.likelihood.sample()
    raise ValueError(f"show is {show!r}; use mean, mode or sample.")


def joined(parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.cat(pieces) for pieces in zip(*parts, strict=True)]


def joined_posterior(parts: Sequence[Posterior]) -> Posterior:
    match parts[0]:
        case CertainCodes(n_codes=n_codes):
            return CertainCodes(torch.cat([q.mean for q in parts]), n_codes)
    gaussians = [q for q in parts if isinstance(q, DiagonalGaussian)]
    return DiagonalGaussian(torch.cat([q.mean for q in gaussians]), torch.cat([q.log_std for q in gaussians]))
