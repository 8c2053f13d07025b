"""The [loss] and [val] sections."""

from collections.abc import Iterator
from typing import Literal

from pydantic import field_validator

from lvae_torch.cfg.section import Count, Fraction, NonNegative, Positive, PositiveInt, PositiveSteps, Section, Steps

Beta = (
    NonNegative
    | tuple[Literal["linear", "logistic"], PositiveSteps]
    | tuple[Literal["linear"], Steps, PositiveSteps, Fraction]
    | tuple[Literal["logistic"], Steps, Positive]
)


class LossSection(Section):
    """[loss]: how the terms of the ELBO become the training loss."""

    beta: Beta = 1.0
    """Weight of the KL: a number; ('linear', 1000) or ('logistic', '20 epochs') for a warm-up from 0 to 1;
    ('linear', first step, last step, minimum); or ('logistic', middle step, growth rate)."""
    mc_samples: PositiveInt = 1
    """Posterior samples per image and step, averaged over."""
    iw_samples: PositiveInt = 1
    """Samples in each importance-weighted bound (IWAE), instead of the ELBO; times mc_samples passes a step."""
    free_bits: NonNegative = 0.0
    """Nats of KL per layer that cost nothing."""
    free_bits_mode: Literal["per_example", "batch_mean"] = "per_example"
    """Whether each image has its free bits, or the mean of a batch (of the part that a process computes at once)."""
    kl_estimate: Literal["analytic", "sampled"] = "analytic"
    """The KL in closed form where there is one, or log q(z) - log p(z) at the sample (always so with iw_samples)."""
    balance: Literal["none", "kl_per_unit", "kl"] = "none"
    """Let layers with much KL (per latent unit, or as it is) pay more of it at first, so that none is given up."""
    balance_steps: Steps = 0
    """The last step that balances; also '2 epochs'."""
    per_dimension: bool = False
    """Divide the loss by the number of pixels and colours (smaller gradients, same optimum)."""

    @field_validator("beta", mode="before")
    @classmethod
    def _pair(cls, beta: object) -> object:
        return tuple(beta) if isinstance(beta, list) else beta

    def problems(self) -> Iterator[str]:
        if self.iw_samples > 1 and (self.free_bits or self.balance != "none"):
            yield "iw_samples excludes free_bits and balance: that bound has no KL term of its own; leave them out"
        match self.beta:
            case ("linear", int(first), int(last), _) if last <= first:
                yield f"beta rises from step {first} to step {last}; give the later step second"


class ValSection(Section):
    """[val]: evaluation while training; always the whole split."""

    every: Steps = 5000
    """Steps between evaluations, or '10 epochs'; 0 for the end only."""
    patience: Count = 0
    """Evaluations without a better -ELBO that end training; any run with patience goes by its best weights. 0: none."""
    batch_norm: Literal["running", "reestimated"] = "running"
    """Statistics for evaluation and inference: those that trail the training, or taken anew over the training split."""
    batch_size: Count = 0
    """Images, or images times samples of a bound, per process and pass; 0 for [train] batch_size / accumulate, at most
    250."""
    iw_samples: Count = 0
    """Samples of the importance-weighted bound computed once, at the end; 0 for none."""
    images: Count = 64
    """Samples and reconstructions in the pictures; 0 for no pictures."""

    def problems(self) -> Iterator[str]:
        if self.patience and self.every == 0:
            yield f"patience = {self.patience} counts evaluations, but every = 0 has but one; set every"
