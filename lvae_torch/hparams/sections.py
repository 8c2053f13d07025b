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
    TupleOf,
)

Mode = Literal["reconstruction", "generation", "encoding", "decoding", "likelihood", "layer_inspection", "analysis"]


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

    beta: NonNegative | tuple[Literal["linear", "logistic"], PositiveSteps] = 1.0
    """Weight of the KL: a number, or ('linear', 1000) or ('logistic', '20 epochs') for a warm-up from 0 to 1."""
    mc_samples: PositiveInt = 1
    """Posterior samples per image and step, averaged over."""
    iw_samples: PositiveInt = 1
    """Samples in each importance-weighted bound (IWAE), instead of the ELBO; times mc_samples passes a step."""
    free_bits: NonNegative = 0.0
    """Nats of KL per layer that cost nothing."""
    free_bits_mode: Literal["per_example", "batch_mean"] = "per_example"
    """Whether each image has its free bits, or the mean of a batch (of the part that a process computes at once)."""
    kl_estimate: Literal["analytic", "sampled"] = "analytic"
    """The KL in closed form, or log q(z) - log p(z) at the sample (noisier; always so with iw_samples)."""
    per_dimension: bool = False
    """Divide the loss by the number of pixels and colours (smaller gradients, same optimum)."""

    @field_validator("beta", mode="before")
    @classmethod
    def _pair(cls, beta: object) -> object:
        return tuple(beta) if isinstance(beta, list) else beta

    @model_validator(mode="after")
    def _fit_together(self) -> "LossSection":
        if self.iw_samples > 1 and self.free_bits:
            raise ValueError("free_bits and iw_samples exclude each other: that bound has no KL term of its own.")
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
    """L2 penalty; decoupled with adamw."""
    schedule: Literal["constant", "cosine", "linear", "exponential", "staircase", "noam"] = "constant"
    """How the learning rate goes on after the warm-up."""
    warmup_steps: Steps = 0
    """Steps of linear rise to the peak; also '2 epochs'."""
    decay_start: Steps = 0
    """cosine, linear: where the fall begins, if that is later than the warm-up's end."""
    final_learning_rate: NonNegative = 0.0
    """Where cosine and linear end, at the last step."""
    decay_rate: Annotated[Float, Field(gt=0, le=1)] = 0.5
    """exponential, staircase: factor per decay_steps."""
    decay_steps: PositiveSteps = 100_000
    """exponential, staircase: steps per factor; the staircase falls once in so many."""
    clip_norm: Positive | None = None
    """Scale gradients down to this global norm; None leaves them."""
    skip_norm: Positive | None = None
    """Skip steps whose gradient norm is above this; None skips only those that are not finite."""
    max_skips_in_a_row: PositiveInt = 100
    """Give up, with advice, after so many skipped steps in a row."""


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
    batch_norm: Literal["running", "reestimated"] = "running"
    """Statistics for evaluation and inference: those that trail the training, or taken anew over the training split."""
    batch_size: PositiveInt = 250
    """Images per process and pass."""
    iw_samples: Count = 0
    """Samples of the importance-weighted bound computed once, at the end; 0 for none."""
    images: Count = 64
    """Samples and reconstructions in the pictures; 0 for no pictures."""


class SynthesisSection(Section):
    """[synthesis]: what ``python -m lvae_torch.synthesize`` does with a trained run. May always be overridden."""

    mode: Mode | TupleOf[Mode] = "reconstruction"
    """One mode, or several in a list."""
    checkpoint: str = "last"
    """last, best, or the number of a step."""
    use_ema: bool = True
    """Use the averaged weights, where the run has them."""
    split: str | None = None
    """Split to read; None for [data] val_split."""
    limit: Count = 0
    """Read only N images, spread evenly over the split; 0 for all."""
    batch_size: PositiveInt = 100
    """Images per pass."""
    seed: Int = 0
    """Of all noise in this mode."""
    n_images: PositiveInt = 64
    """generation: how many."""
    columns: PositiveInt = 8
    """Columns of picture grids; layer_inspection draws as many rows."""
    temperature: Positive | tuple[Literal["linear"], Positive, Positive] | TupleOf[NonNegative] = 1.0
    """Factor on prior stds where z is drawn from p: a number, one per layer (top first), or ('linear', top, bottom)."""
    draw: Literal["mean", "sample", "mode"] = "mean"
    """What is shown of p(x|z)."""
    save_singles: bool = False
    """generation, reconstruction, decoding: write each image as a PNG of its own too."""
    pairs: PositiveInt = 32
    """reconstruction: pairs in the picture."""
    iw_samples: Annotated[Int, Field(ge=1, le=10_000)] = 100
    """likelihood: K."""
    chunk: PositiveInt = 500
    """likelihood: images times samples in one pass; bounds the memory."""
    shard_format: Literal["safetensors", "npz"] = "safetensors"
    """encoding: file format."""
    shard_size: PositiveInt = 1000
    """encoding: images per file; an interrupted mode continues after the last whole file."""
    source: str | None = None
    """decoding: folder of encodings; None for this run's own."""

    @field_validator("mode", "temperature", mode="before")
    @classmethod
    def _as_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _step(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _possible(self) -> "SynthesisSection":
        if self.mode == ():
            raise ValueError("mode is an empty list; name at least one mode.")
        if self.checkpoint not in ("last", "best") and not self.checkpoint.isdecimal():
            raise ValueError(f"checkpoint is {self.checkpoint!r}; use last, best, or the number of a step.")
        return self
