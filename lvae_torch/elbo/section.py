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
    """Weight of the KL: a number; a warm-up from 0 to 1, ('linear', 1000) or ('logistic', '20 epochs');
    ('linear', first step, last step, minimum); or ('logistic', middle step, growth rate)."""
    mc_samples: PositiveInt = 1
    """Posterior samples per image and step; the loss is their mean."""
    iw_samples: PositiveInt = 1
    """Samples in the importance-weighted bound (IWAE); 1 is the ELBO. A step encodes each image once, and
    decodes it mc_samples * iw_samples times; dropout on the way up is the same for all of these."""
    free_bits: NonNegative = 0.0
    """Nats of KL per layer that are not penalised."""
    free_bits_mode: Literal["per_example", "batch_mean"] = "per_example"
    """Apply free bits to each image, or to the mean over a batch (the part that a process computes at once)."""
    kl_estimate: Literal["analytic", "sampled"] = "analytic"
    """KL in closed form if one exists, or log q(z) - log p(z) at the sample; iw_samples > 1 always uses the sample."""
    balance: Literal["none", "kl_per_unit", "kl"] = "none"
    """At first, penalise layers with a high KL (per unit, or in total) more, so that no layer is given up."""
    balance_steps: Steps = 0
    """Last step with balance, which does nothing without it; or in epochs, '2 epochs'."""
    per_dimension: bool = False
    """Divide the loss by C * H * W (smaller gradients, same optimum)."""

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

    def without_effect(self) -> Iterator[str]:
        n = self.balance_steps
        has_steps = float(n.split()[0] if isinstance(n, str) else n) > 0
        if self.balance != "none" and not has_steps:
            yield f"balance = {self.balance} does nothing, for it ends with balance_steps, which is {n}"
        if self.balance == "none" and has_steps:
            yield f"balance_steps = {n} does nothing, for balance = none"


class ValSection(Section):
    """[val]: evaluation during training."""

    every: Steps = 5000
    """Steps between evaluations, or '10 epochs'; 0 evaluates only at the end."""
    patience: Count = 0
    """Stop after this many evaluations without improvement and use the best weights; 0 never stops early."""
    batch_norm: Literal["running", "reestimated"] = "running"
    """Statistics for evaluation and inference: running averages, or reestimated over the training images (running
    where these are not there)."""
    batch_size: Count = 0
    """Images (or images times samples) per process in one pass; 0 uses [train] batch_size / accumulate, up to 250."""
    iw_samples: Count = 0
    """Samples of the importance-weighted bound computed once, at the end; 0 for none."""
    as_published: bool = False
    """Score also as the family's original program does, with its approximations of p(x|z) and its bins; told apart."""
    images: Count = 64
    """Number of samples and of reconstructions in the pictures; 0 draws no pictures."""

    def problems(self) -> Iterator[str]:
        if self.patience and self.every == 0:
            yield f"patience = {self.patience} counts evaluations, but every = 0 has but one; set every"
