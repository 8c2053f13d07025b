"""Formulas on tensors, in nats. Each distribution is a few tensors and what follows from them."""

from lvae_torch.distributions.bernoulli import Bernoulli
from lvae_torch.distributions.discretized_logistic import DiscretizedLogistic
from lvae_torch.distributions.gaussian import DiagonalGaussian
from lvae_torch.distributions.logistic_mixture import LogisticMixture
from lvae_torch.distributions.normal import GaussianLikelihood

__all__ = ["Bernoulli", "DiagonalGaussian", "DiscretizedLogistic", "GaussianLikelihood", "LogisticMixture"]
