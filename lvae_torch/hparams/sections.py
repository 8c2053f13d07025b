"""The sections that every run has. A cfg states only what differs from these defaults.

The ``[model]`` section belongs to the model family: see the file beside each family in ``lvae_torch/models/``.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lvae_torch.files import check_name
from lvae_torch.sections import (
    Count,
    Float,
    Fraction,
    Int,
    NonNegative,
    Positive,
    PositiveInt,
    PositiveSteps,
    Section,
    Steps,
)


class RunSection(Section):
    """[run]: which run this is, and where."""

    name: str
    """Name of the run and of its folder; the same name continues the same run."""
    runs: str = "runs"
    """Folder of all runs."""
    seed: Int = 42
    """Everything random follows from it: initial weights, order of the data, noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""

    @field_validator("name")
    @classmethod
    def _safe(cls, name: str) -> str:
        return check_name(name, "name")


class DataSection(Section):
    """[data]: which images, and what the device does with them."""

    dataset: str
    """Name of the dump: a folder in ``dumps``, made by ``python -m data_scripts``."""
    dumps: str = "dataset_dumps"
    """Folder of all dumps."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str = "test"
    """Split to evaluate on."""
    binarize: Literal["none", "dynamic", "threshold"] = "none"
    """Grey to binary. dynamic: from Bernoulli(grey/255) at each use, but once in evaluation; threshold: cut at 1/2."""
    n_bits: Annotated[Int, Field(ge=1, le=8)] = 8
    """Bits kept of 8-bit pixels; 5 keeps 32 levels."""
    flip: bool = False
    """Mirror half of the training images left to right."""
    dequantize: bool = False
    """Add uniform noise within a pixel level (fixed noise in evaluation), for likelihoods that are densities."""
    verify: bool = True
    """Compare the dump's bytes with their checksums at each start (a second or so a GiB); off, only their number."""
    on_device: bool = False
    """Keep the whole training split in the device's memory; fastest where it fits."""
    limit_train: Count = 0
    """Train on the first N images only; 0 for all."""
    limit_val: Count = 0
    """Evaluate on N images spread evenly over the split; 0 for all."""

    @field_validator("dataset", "train_split", "val_split")
    @classmethod
    def _safe(cls, name: str) -> str:
        return check_name(name, "it")


class LossSection(Section):
    """[loss]: how the terms of the ELBO become the training loss."""

    beta: (
        NonNegative
        | tuple[Literal["linear", "logistic"], PositiveSteps]
        | tuple[Literal["linear"], Steps, PositiveSteps, Fraction]
        | tuple[Literal["logistic"], Steps, Positive]
    ) = 1.0
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

    @model_validator(mode="after")
    def _fit_together(self) -> "LossSection":
        if self.iw_samples > 1 and (self.free_bits or self.balance != "none"):
            raise ValueError(
                "iw_samples excludes free_bits and balance: that bound has no KL term of its own; leave them out."
            )
        return self


class OptimizerSection(Section):
    """[optimizer]: how gradients become steps."""

    name: Literal["adam", "adamw", "adamax", "radam"] = "adamax"
    """Which of PyTorch's optimizers."""
    learning_rate: Positive = 3e-4
    """Peak learning rate."""
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    """Decay of the first and second moments."""
    eps: Positive = 1e-8
    """Added where a moment divides."""
    weight_decay: NonNegative = 0.0
    """Weight decay: an L2 penalty; decoupled with adamw, and where only blocks decay."""
    weight_decay_on: Literal["all", "blocks"] = "all"
    """All weights, or only the convolutions inside blocks (efficient_vdvae)."""
    schedule: Literal["constant", "cosine", "linear", "exponential", "staircase", "noam"] = "constant"
    """How the learning rate goes on after the warm-up."""
    warmup_steps: Steps = 0
    """Steps of linear rise to the peak; also '2 epochs'."""
    decay_start: Steps = 0
    """Where the fall begins, if that is later than the warm-up's end."""
    decay_end: Steps = 0
    """cosine, linear: where the fall ends; 0 for the last step."""
    final_learning_rate: NonNegative = 0.0
    """Where cosine and linear end, and below which exponential and staircase never fall."""
    decay_rate: Annotated[Float, Field(gt=0, le=1)] = 0.5
    """exponential, staircase: factor per decay_steps."""
    decay_steps: PositiveSteps = 100_000
    """exponential, staircase: steps per factor; the staircase falls once in so many."""
    clip_norm: Positive | None = None
    """Scale gradients down to this global norm; None leaves them."""
    skip_norm: Positive | None = None
    """Skip steps whose gradient norm is above this; None skips only those that are not finite."""
    max_skips_in_a_row: PositiveInt = 100
    """After so many, one is taken at length skip_norm; more that are not finite end the run, with advice."""


class TrainSection(Section):
    """[train]: how long, how many at once, and with which switches."""

    steps: PositiveSteps = 100_000
    """Steps in all, or '250 epochs'; raise it to continue a finished run."""
    initial_run: str | None = None
    """Begin with this run's weights (the averaged ones, if it has them), for fine-tuning; None begins anew."""
    batch_size: PositiveInt = 64
    """Images per step, over all processes together."""
    accumulate: PositiveInt = 1
    """Parts in which each process computes its share of a batch, to save memory."""
    ema_decay: Fraction = 0.999
    """Decay of the moving average of the weights, which is what gets evaluated; 0 for none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the networks in half precision (for GPUs); likelihood and KL stay in float32."""
    compile: bool = False
    """torch.compile the model: pays on GPUs, not on CPUs."""
    channels_last: bool = True
    """Memory format of images and weights; the faster one nearly everywhere."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    sync_batch_norm: bool = False
    """Batch statistics over all GPUs instead of each process's own."""
    log_every: PositiveSteps = 100
    """Steps between log lines."""
    checkpoint_every: PositiveSteps = 1000
    """Steps between checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """How many of the newest to keep, beside the best."""
    timeout_minutes: Positive = 30.0
    """How long processes wait for one another before they give up."""

    @field_validator("initial_run")
    @classmethod
    def _safe(cls, name: str | None) -> str | None:
        return None if name is None else check_name(name, "initial_run")


class ValSection(Section):
    """[val]: evaluation while training; always the whole split."""

    every: Steps = 5000
    """Steps between evaluations, or '10 epochs'; 0 for the end only."""
    patience: Count = 0
    """Evaluations without a better -ELBO that end training; any run with patience goes by its best weights. 0: none."""
    batch_norm: Literal["running", "reestimated"] = "running"
    """Statistics for evaluation and inference: those that trail the training, or taken anew over the training split."""
    batch_size: PositiveInt = 250
    """Images per process and pass."""
    iw_samples: Count = 0
    """Samples of the importance-weighted bound computed once, at the end; 0 for none."""
    images: Count = 64
    """Samples and reconstructions in the pictures; 0 for no pictures."""
