"""The [optimizer] and [train] sections."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator

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
    whole,
)
from lvae_torch.files import check_name


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
    """After this many skipped steps in a row, take one clipped to skip_norm; where gradients are not finite, stop."""

    def problems(self) -> Iterator[str]:
        if self.final_learning_rate > self.learning_rate:
            yield (
                f"final_learning_rate = {self.final_learning_rate} is above learning_rate = {self.learning_rate}; "
                "cosine and linear only fall"
            )
        start, end = self.decay_start, self.decay_end
        if isinstance(start, int) and isinstance(end, int) and 0 < end <= start:
            yield f"decay_end = {end} is not after decay_start = {start}; 0 is the last step"


class TrainSection(Section):
    """[train]: how long, how many at once, and with which switches."""

    steps: PositiveSteps = 100_000
    """Steps in all, or '250 epochs'; raise it to continue a finished run."""
    initial_run: str | None = None
    """Begin with this run's weights (the averaged ones, if it has them), for fine-tuning: NAME, or NAME@STEP,
    NAME@best, NAME@good; None begins anew."""
    initial_partial: bool = False
    """Take of initial_run what fits by name and shape, for another image size or depth; the rest begins anew."""
    freeze: TupleOf[str] = ()
    """Patterns of names of weights that stay as they are, such as ['stem.*', 'bottom_up.*'], for fine-tuning."""
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
    """How many of the newest to keep, beside the best and the last good one."""
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

    @property
    def total_steps(self) -> int:
        """``steps`` as a number, once epochs were resolved."""
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
