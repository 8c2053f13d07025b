"""One training step, with nothing read back from the device."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from lvae_torch.models.sources import posterior_sample
from lvae_torch.objectives import Objective, Terms
from lvae_torch.training.ema import Ema
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import GuardedStep, LearningRate, keep_where


@dataclass
class TrainStep:
    """Raw uint8 batch -> updated weights. A step with a bad gradient changes no weight, moment or statistic.

    It counts as skipped, and the average goes on towards the weights that stayed.
    """

    model: nn.Module
    """As it is called: wrapped in DDP or compiled, if it is."""
    bare: nn.Module
    flat: FlatParameters
    ema: Ema | None
    objective: Objective
    optimizer: Optimizer
    learning_rate: LearningRate
    meter: Meter
    preprocess: Callable[[Tensor], Tensor]
    """Raw batch -> x in [0, 1], with this step's augmentation and binarization."""
    accumulate: int = 1
    clip_norm: float | None = None
    skip_norm: float | None = None
    autocast: AbstractContextManager[object] | None = None

    def __post_init__(self) -> None:
        self._guarded = GuardedStep(self.optimizer, self.flat)
        self._buffers = list(self.bare.buffers())

    def __call__(self, raw: Tensor, step: int) -> None:
        """Train on raw, (b, H, W, C), this rank's share of the global batch of ``step``."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        buffers = [buffer.clone() for buffer in self._buffers]
        loss, terms = self._backward(raw, step)
        # DDP has averaged the gradients over ranks, so all ranks see one norm and decide alike.
        norm = get_total_norm([self.flat.gradient])
        ok = norm.isfinite() if self.skip_norm is None else norm < self.skip_norm  # NaN < s is false
        if self.clip_norm is not None:
            clip_grads_with_norm_([self.flat.vector], self.clip_norm, norm)
        self._guarded(ok)
        with torch.no_grad():
            keep_where(ok, self._buffers, buffers)
            self.meter.add(loss, terms, norm, ok)
        if self.ema is not None:
            self.ema.update(self.bare, self.flat, step)

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes."""
        return {
            "model": self.bare.state_dict(),
            "ema": None if self.ema is None else self.ema.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "meter": self.meter.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave; an EMA switched on since begins at the weights."""
        self.bare.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.model.load_state_dict(state["ema"] or state["model"])
        # Moments from the checkpoint; betas, weight decay and what suits this device from today's settings.
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        self.meter.load_state_dict(state["meter"])

    def _backward(self, raw: Tensor, step: int) -> tuple[Tensor, Terms]:
        self.flat.gradient.zero_()
        losses, parts = [], raw.chunk(self.accumulate)
        all_terms: list[Terms] = []
        for k, part in enumerate(parts):
            with self._no_sync_before(last=k == len(parts) - 1):
                with self.autocast or nullcontext():
                    x = self.objective.repeated(self.preprocess(part))
                    loss, terms = self.objective(x, self.model(x, posterior_sample), step)
                (loss / len(parts)).backward()
            losses.append(loss.detach())
            all_terms.append(Terms(terms.nll.detach(), terms.kl.detach()))
        return torch.stack(losses).mean(), Terms(
            torch.cat([t.nll for t in all_terms]), torch.cat([t.kl for t in all_terms])
        )

    def _no_sync_before(self, last: bool) -> AbstractContextManager[object]:
        """Ranks exchange gradients once, with the last part of an accumulated batch."""
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return nullcontext()
