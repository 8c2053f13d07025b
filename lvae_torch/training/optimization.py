"""Optimizers, learning-rate schedules, and the step that undoes itself where the gradient was bad."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Adam, Adamax, AdamW, Optimizer, RAdam

from lvae_torch.cfg.section import whole
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.section import OptimizerSection

OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": AdamW, "adamax": Adamax, "radam": RAdam}
FUSED = {"adam", "adamw"}
LearningRate = Callable[[int], float]


def make_optimizer(section: OptimizerSection, flat: FlatParameters, block_weights: Sequence[Tensor] = ()) -> Optimizer:
    """The section's optimizer over the flat vector. The learning rate is set at each step.

    Args:
        block_weights: what decays alone under ``weight_decay_on = blocks``: views of the flat vector.
    """
    on_all = section.weight_decay if section.weight_decay_on == "all" else 0.0
    optimizer = new_optimizer(section.name, flat.vector, section.betas, section.eps, on_all)
    if section.weight_decay_on == "blocks":
        trained = [weight for weight in block_weights if weight.requires_grad]
        decay_before_steps(optimizer, trained, section.weight_decay)
    return optimizer


def new_optimizer(
    name: str, vector: Tensor, betas: tuple[float, float], eps: float, weight_decay: float = 0.0
) -> Optimizer:
    """A torch optimizer over ``vector``, whose moments are there before the first step."""
    kind: Callable[..., Optimizer] = OPTIMIZERS[name]
    # On a GPU, capturable keeps the step counter on the device, out of the host's sight; on a CPU, one fused pass over
    # the weights costs half of the seven that it replaces.
    on_cpu: dict[str, bool] = {"fused": True} if name in FUSED else {"foreach": False}
    how = {"capturable": True, "foreach": False} if vector.is_cuda else on_cpu
    optimizer = kind([vector], lr=0.0, betas=betas, eps=eps, weight_decay=weight_decay, **how)
    # torch makes the moments at the first step; a checkpoint or a skipped first step needs them before.
    optimizer.step()  # learning rate 0, gradient 0
    for state in optimizer.state.values():
        for tensor in state.values():
            tensor.zero_()
    return optimizer


def decay_before_steps(optimizer: Optimizer, weights: Sequence[Tensor], rate: float) -> None:
    """Decoupled weight decay (Loshchilov & Hutter 2019) of these weights, views of the optimizer's vector, only."""

    def decay(optimizer: Optimizer, args: object, kwargs: object) -> None:
        torch._foreach_mul_(list(weights), 1 - float(optimizer.param_groups[0]["lr"]) * rate)

    optimizer.register_step_pre_hook(decay)


def learning_rate(section: OptimizerSection, total_steps: int) -> LearningRate:
    """Step -> learning rate: a linear warm-up, then the section's schedule.

    ``noam`` falls as 1/sqrt(step) after the warm-up (Vaswani et al. 2017), scaled to the peak at its end.
    """
    base, final = section.learning_rate, section.final_learning_rate
    warmup_steps, decay_steps = whole(section.warmup_steps), whole(section.decay_steps)
    fall = max(warmup_steps, whole(section.decay_start))
    length = max(1, (whole(section.decay_end) or total_steps) - fall)

    def after_warmup(step: int) -> float:
        since = max(0, step - fall)
        done = min(1.0, since / length)
        match section.schedule:
            case "cosine":
                return final + (base - final) * 0.5 * (1 + math.cos(math.pi * done))
            case "linear":
                return base + (final - base) * done
            case "exponential":
                return max(final, base * section.decay_rate ** (since / decay_steps))
            case "staircase":
                return max(final, base * section.decay_rate ** (since // decay_steps))
            case "noam":
                start = max(1, warmup_steps)
                return base * math.sqrt(start / max(start, step))
            case _:
                return base

    return lambda step: after_warmup(step) * min(1.0, (step + 1) / (warmup_steps + 1))


class GuardedStep:
    """``optimizer.step()`` that leaves no trace where ``ok`` is false, decided on the device: nothing waits for it.

    On a CPU ``ok`` is known already, so looking at it costs less than undoing the step.
    """

    def __init__(self, optimizer: Optimizer, flat: FlatParameters) -> None:
        self.optimizer = optimizer
        self.flat = flat

    @torch.no_grad()
    def __call__(self, ok: Tensor) -> None:
        if ok.is_cuda:
            self.step_and_undo(ok)
        elif ok.numpy():
            self.optimizer.step()

    @torch.no_grad()
    def step_and_undo(self, ok: Tensor) -> None:
        """The step, taken back where ``ok`` is false, with nothing read back from the device."""
        tensors = [self.flat.vector.data, *self.optimizer.state[self.flat.vector].values()]
        before = [t.clone() for t in tensors]
        self.optimizer.step()
        keep_where(ok, tensors, before)


def keep_where(ok: Tensor, tensors: list[Tensor], before: list[Tensor]) -> None:
    """Put ``before`` back into ``tensors`` where the scalar ``ok`` is false. NaN in what is dropped does no harm."""
    for tensor, old in zip(tensors, before, strict=True):
        torch.where(ok, tensor, old, out=tensor)
