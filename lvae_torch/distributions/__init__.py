"""Distributions over tensors, in nats. Each one is a frozen record of its parameters, with the formulas as methods."""

from lvae_torch.distributions.autoregressive_flow import AutoregressiveFlow
from lvae_torch.distributions.bernoulli import Bernoulli
from lvae_torch.distributions.discretized_logistic import DiscretizedLogistic
from lvae_torch.distributions.gaussian import DiagonalGaussian, SmoothScale
from lvae_torch.distributions.gaussian_likelihood import GaussianLikelihood
from lvae_torch.distributions.logistic_mixture import LogisticMixture
from lvae_torch.distributions.squared_error import SquaredError

__all__ = [
    "AutoregressiveFlow",
    "Bernoulli",
    "DiagonalGaussian",
    "DiscretizedLogistic",
    "GaussianLikelihood",
    "LogisticMixture",
    "SmoothScale",
    "SquaredError",
]
