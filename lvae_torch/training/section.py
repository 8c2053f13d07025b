"""The [optimizer] and [train] sections."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from lvae_torch.cfg.section import (
    Count,
    Float,
    Fraction,
    NonNegative,
    Positive,
    PositiveInt,
    PositiveSteps,
    Section,
    Steps,
    TupleOf,
    one_of,
    whole,
)
from lvae_torch.files import check_name
from lvae_torch.training.optimizers import OPTIMIZERS
from lvae_torch.training.schedules import READ_BY, SCHEDULES


class OptimizerSection(Section):
    """[optimizer]: optimizer, learning rate, and treatment of large gradients."""

    name: Annotated[str, AfterValidator(one_of(OPTIMIZERS))] = "adamax"
    """The optimizer, from torch.optim."""
    learning_rate: Positive = 3e-4
    """Peak learning rate."""
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    """Decay rates of the first and second moments."""
    eps: Positive = 1e-8
    """Small number added to the denominator of the update."""
    weight_decay: NonNegative = 0.0
    """Weight decay: an L2 penalty; decoupled with adamw or weight_decay_on = blocks."""
    weight_decay_on: Literal["all", "blocks"] = "all"
    """All weights, or only the convolutions inside blocks (efficient_vdvae, vdvae)."""
    schedule: Annotated[str, AfterValidator(one_of(SCHEDULES))] = "constant"
    """How the learning rate goes on after the warm-up. cosine_chained: as Efficient-VDVAE's PyTorch program has it."""
    warmup_steps: Steps = 0
    """Steps of linear rise to the peak; also '2 epochs'."""
    warmup_from_zero: bool = False
    """Begin the warm-up at rate 0, as the programs of both very deep VAEs do; False: at 1 / (warmup_steps + 1)."""
    decay_start: Steps = 0
    """Step at which the fall begins, if later than the end of the warm-up."""
    decay_end: Steps = 0
    """cosine, cosine_chained, linear: where the fall ends; 0 for the last step."""
    final_learning_rate: NonNegative = 0.0
    """Final value of cosine and linear, and lower limit of exponential and staircase."""
    decay_rate: Annotated[Float, Field(gt=0, le=1)] = 0.5
    """exponential, staircase: factor on the learning rate per decay_steps."""
    decay_steps: PositiveSteps = 100_000
    """exponential, staircase: steps per factor decay_rate; staircase falls once per this many steps."""
    clip_norm: Positive | None = None
    """Scale gradients with a larger global norm down to this norm; None does not clip."""
    skip_norm: Positive | None = None
    """Skip steps whose gradient norm is above this; None skips only gradients that are not finite."""
    max_skips_in_a_row: PositiveInt = 100
    """After this many skipped steps in a row, take one clipped to skip_norm; stop if gradients are not finite."""

    def problems(self) -> Iterator[str]:
        if self.final_learning_rate > self.learning_rate:
            yield (
                f"final_learning_rate = {self.final_learning_rate} is above learning_rate = {self.learning_rate}; "
                "cosine and linear only fall"
            )
        end = self.decay_end
        for key, start in (("decay_start", self.decay_start), ("warmup_steps", self.warmup_steps)):
            if isinstance(start, int) and isinstance(end, int) and 0 < end <= start:
                yield f"decay_end = {end} is not after {key} = {start}; 0 is the last step"

    def without_effect(self) -> Iterator[str]:
        for key, schedules in READ_BY.items():
            value = getattr(self, key)
            if self.schedule not in schedules and value != type(self).model_fields[key].default:
                yield f"{key} = {value} does nothing, for schedule = {self.schedule}"


class TrainSection(Section):
    """[train]: length of training, batch size, precision, checkpoints."""

    steps: PositiveSteps = 100_000
    """Total number of steps, or '250 epochs'; raise it to continue a finished run."""
    initial_run: str | None = None
    """Run whose weights (averaged ones, if it has them) to begin with, for fine-tuning: NAME, or NAME@STEP, NAME@best,
    NAME@good; None draws new weights."""
    initial_partial: bool = False
    """Take of initial_run what fits by name and shape, for another image size or depth; the rest begins anew."""
    freeze: TupleOf[str] = ()
    """Patterns of names of weights that stay as they are, such as ['stem.*', 'bottom_up.*'], for fine-tuning."""
    batch_size: PositiveInt = 64
    """Images per step over all processes together."""
    accumulate: PositiveInt = 1
    """Number of parts in which each process computes its share of a batch; more parts save memory."""
    ema_decay: Fraction = 0.999
    """Decay of the moving average of the weights, which is evaluated and used; 0 for no average."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the networks in half precision: faster on GPUs, and on CPUs with AMX (about 2 times) or
    AVX512_BF16 (1.5 times); several times slower on other CPUs. Likelihood, KL, statistics, optimizer and averages
    stay float32."""
    compile: bool = False
    """Use torch.compile: faster on GPUs; on CPUs 1.0 to 1.1 times as fast, for minutes of compiling at each start."""
    cuda_graph: bool = True
    """On NVIDIA GPUs: replay the whole step, and the passes of evaluations and of the mode likelihood, as one graph
    each, with the same numbers, so that the host has little to do."""
    tf32: bool = True
    """On NVIDIA GPUs: multiply float32 in TF32, rounded to 10 bits, several times as fast; sums stay float32."""
    cudnn_benchmark: bool = False
    """On NVIDIA GPUs: try all algorithms of each convolution at the start, and use the fastest."""
    channels_last: bool = True
    """Use the channels-last memory format for images and weights; nearly always faster."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: saves memory, takes about a third more time."""
    sync_batch_norm: bool = False
    """Compute batch norm statistics over the batches of all processes together, instead of in each."""
    log_every: PositiveSteps = 100
    """Steps between log lines."""
    checkpoint_every: PositiveSteps = 1000
    """Steps between checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """How many of the newest checkpoints to keep, beside the best and the last good one."""
    rollback: Count = 0
    """How often a run that diverged goes back by itself, with other noise, to its last good checkpoint; 0 ends it."""
    rollback_rate: Annotated[Float, Field(gt=0, le=1)] = 1.0
    """Factor on the learning rate after each time that it went back."""
    timeout_minutes: Positive = 30.0
    """How long processes wait for one another before they give up."""

    def problems(self) -> Iterator[str]:
        if self.batch_size % self.accumulate:
            yield f"accumulate = {self.accumulate} does not divide batch_size = {self.batch_size}; choose a divisor"

        if self.initial_partial and self.initial_run is None:
            yield "initial_partial says how to take the weights of initial_run, but there is none; name one"

    def without_effect(self) -> Iterator[str]:
        if self.rollback_rate != 1 and not self.rollback:
            yield f"rollback_rate = {self.rollback_rate} does nothing, for rollback = 0"

    @property
    def total_steps(self) -> int:
        """``steps`` as a number; epochs must be converted to steps before."""
        return whole(self.steps)

    @field_validator("initial_run")
    @classmethod
    def _safe(cls, name: str | None) -> str | None:
        if name is not None:
            run, _, which = name.partition("@")
            check_name(run, "initial_run")
            if "@" in name and which not in ("last", "best", "good") and not which.isdecimal():
                raise ValueError(f"{which!r} is no checkpoint; use a step, best, good or last")
        return name
