"""Builds optimizer and learning rate, and undoes a step if its gradient was bad."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lvae_torch.cfg.section import whole
from lvae_torch.errors import DataError
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.optimizers import FUSED, OPTIMIZERS
from lvae_torch.training.schedules import SCHEDULES, Fall
from lvae_torch.training.section import OptimizerSection

LearningRate = Callable[[int], float]


def make_optimizer(section: OptimizerSection, flat: FlatParameters, block_weights: Sequence[Tensor] = ()) -> Optimizer:
    """Make the section's optimizer over the flat vector. Each step sets the learning rate.

    Args:
        block_weights: the only weights that decay if ``weight_decay_on = blocks``; views of the flat vector.
    """
    on_all = section.weight_decay if section.weight_decay_on == "all" else 0.0
    options: dict[str, Any] = {"betas": section.betas, "eps": section.eps, "weight_decay": on_all}
    optimizer = new_optimizer(section.name, flat.vector, **options)
    trained = [weight for weight in block_weights if weight.requires_grad]
    if section.weight_decay_on == "blocks" and trained:  # none where all of them are frozen
        decay_before_steps(optimizer, trained, section.weight_decay)
    return optimizer


def new_optimizer(name: str, vector: Tensor, **options: Any) -> Optimizer:
    """Make a torch optimizer over ``vector`` whose moments exist before the first step; ``options`` are torch's own."""
    kind: Callable[..., Optimizer] = OPTIMIZERS[name]
    # On a GPU, capturable keeps the step counter on the device. On a CPU, one fused pass over the weights takes half
    # the time of the seven passes that it replaces.
    on_cpu: dict[str, bool] = {"fused": True} if name in FUSED else {"foreach": False}
    how = {"capturable": True, "foreach": False} if vector.is_cuda else on_cpu
    optimizer = kind([vector], lr=0.0, **options, **how)
    # torch creates the moments in the first step, but checkpoints and skipped steps need them earlier.
    optimizer.step()  # learning rate 0, gradient 0
    for state in optimizer.state.values():
        for tensor in state.values():
            tensor.zero_()
    return optimizer


def check_moments(saved: Mapping[str, Any], vector: Tensor) -> None:
    """Hold the state of an optimizer against ``vector``; torch takes moments of any length.

    Raises:
        DataError: if they are of another number of weights.
    """
    for state in saved["state"].values():
        for key, values in state.items():
            if isinstance(values, Tensor) and values.dim() and values.shape != vector.shape:
                raise DataError(
                    f"the checkpoint's optimizer has {key} of {values.numel():,} weights, but {vector.numel():,} are "
                    "trained. Leave [train] freeze as it was, or import the run anew with it."
                )


def decay_before_steps(optimizer: Optimizer, weights: Sequence[Tensor], rate: float) -> None:
    """Apply decoupled weight decay to these weights only, which are views of the optimizer's vector.

    See Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101.
    """

    def decay(optimizer: Optimizer, args: object, kwargs: object) -> None:
        torch._foreach_mul_(list(weights), 1 - optimizer.param_groups[0]["lr"] * rate)

    optimizer.register_step_pre_hook(decay)


def learning_rate(section: OptimizerSection, total_steps: int) -> LearningRate:
    """Make the function step -> learning rate: a linear warm-up, then the section's schedule."""
    warmup_steps, period = whole(section.warmup_steps), whole(section.decay_steps)
    start = max(warmup_steps, whole(section.decay_start))
    length = max(1, (whole(section.decay_end) or total_steps) - start)
    schedule = SCHEDULES[section.schedule]

    def rate(step: int) -> float:
        since = max(0, step - start)
        ends = section.learning_rate, section.final_learning_rate
        done = min(1.0, since / length)
        fall = Fall(*ends, since, done, section.decay_rate, period, step, warmup_steps, start, start + length)
        return schedule(fall) * warmup(step)

    def warmup(step: int) -> float:
        if section.warmup_from_zero:
            return min(1.0, step / max(1, warmup_steps))
        return min(1.0, (step + 1) / (warmup_steps + 1))

    return rate


def without_jump(rate: LearningRate, rate_from: Sequence[float], origin: int = 0) -> LearningRate:
    """The rate that goes in a straight line from an earlier one to ``rate``, and then follows it.

    Args:
        rate: the schedule, which counts its steps from ``origin``.
        rate_from: a step of the run, the learning rate there, and the steps that lead from it to the schedule.
    """
    first, before, length = rate_from

    def led(step: int) -> float:
        after = rate(step - origin)
        if step - first >= length:
            return after
        return before + (after - before) * max(0.0, (step - first + 1) / (length + 1))

    return led


class GuardedStep:
    """``optimizer.step()`` that changes nothing if ``ok`` is false; the host does not wait for ``ok``.

    On a CPU ``ok`` is already known, so reading it is cheaper than undoing the step.
    """

    def __init__(self, optimizer: Optimizer, flat: FlatParameters) -> None:
        self.optimizer = optimizer
        self.flat = flat

    @torch.no_grad()
    def __call__(self, ok: Tensor) -> None:
        if ok.device.type != "cpu":
            self.step_and_undo(ok)
        elif ok.numpy():
            self.optimizer.step()

    @torch.no_grad()
    def step_and_undo(self, ok: Tensor) -> None:
        """Take the step, and undo it if ``ok`` is false, without reading from the device."""
        tensors = [self.flat.vector.data, *self.optimizer.state[self.flat.vector].values()]
        before = [t.clone() for t in tensors]
        self.optimizer.step()
        keep_where(ok, tensors, before)


def keep_where(ok: Tensor, tensors: list[Tensor], before: list[Tensor]) -> None:
    """Put ``before`` back into ``tensors`` if the scalar ``ok`` is false; NaNs in the dropped values do no harm."""
    for tensor, old in zip(tensors, before, strict=True):
        torch.where(ok, tensor, old, out=tensor)
