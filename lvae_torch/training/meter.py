"""Sums of losses and norms since the last log line, in one vector that stays on the device."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lvae_torch.distributed.processes import Processes
from lvae_torch.elbo.bounds import Terms

KEPT_NORMS = 1024
TAKEN = -1.0
"""Stands for the norm of a step that was taken."""


@dataclass(frozen=True)
class Reading:
    """Means over all ranks and all steps since the last reading, in nats per image."""

    loss: float
    nll: float
    kl: tuple[float, ...]
    grad_norm: float
    n_steps: int
    skipped: int
    """Steps skipped since the run began."""
    skipped_in_a_row: int
    extras: Mapping[str, float]
    """Numbers of some families, under their names in reports."""
    skipped_norms: tuple[float, ...] = ()
    """Gradient norms of the steps skipped since the last reading, of the last ``KEPT_NORMS`` steps; they may be NaN."""
    skipped_now: int = 0
    """Steps skipped since the last reading."""
    not_finite_in_a_row: int = 0
    """Steps since the last one with a finite gradient, whether that was taken or skipped."""

    @property
    def nelbo(self) -> float:
        return self.nll + sum(self.kl)

    @property
    def n_tried(self) -> int:
        """Steps since the last reading, taken or skipped."""
        return self.n_steps + self.skipped_now

    @property
    def finite_norms(self) -> tuple[float, ...]:
        """Norms of the skipped steps that are numbers, in rising order."""
        return tuple(sorted(norm for norm in self.skipped_norms if math.isfinite(norm)))

    @property
    def is_lost(self) -> bool:
        """Whether most of the steps had no finite gradient, or those taken no finite loss."""
        n_known = min(self.n_tried, KEPT_NORMS)
        not_finite = len(self.skipped_norms) - len(self.finite_norms)
        return 2 * not_finite > n_known or (self.n_steps > 0 and not math.isfinite(self.nelbo))


class Meter:
    """Sums up the terms of each step. Only ``read`` makes the host wait for the device."""

    def __init__(self, n_layers: int, device: torch.device) -> None:
        self.n_layers = n_layers
        self.sums = torch.zeros(n_layers + 4, device=device)  # loss, nll, kl..., gradient norm, number of steps
        self.skips = torch.zeros(3, device=device)  # since the run began, in a row, and in a row not finite
        self.norms = torch.full((KEPT_NORMS,), TAKEN, device=device)  # of skipped steps since the last reading
        self._at = torch.zeros(1, dtype=torch.int64, device=device)  # where the next norm goes, once reduced
        self._skipped_before = 0  # steps skipped until the last reading
        self.extras: list[str] = []  # names of further entries of ``sums``, known from the first step

    def add(self, loss: Tensor, terms: Terms, grad_norm: Tensor, ok: Tensor) -> None:
        """Add one step; a skipped one (``ok`` false) is counted but does not enter the means.

        After the first call everything is written in place, so that a captured step finds it where it was.
        """
        extras = terms.extras
        if not self.extras and extras:
            self.extras, self.sums = list(extras), torch.cat([self.sums, self.sums.new_zeros(len(extras))])
        known = [loss, terms.nll.mean(), *terms.kl.mean(dim=0).unbind(), grad_norm, torch.ones_like(loss)]
        means = torch.stack([*known, *extras.values()])
        self.sums += torch.where(ok, means.detach(), 0.0)
        skipped, not_finite = (~ok).float(), (~grad_norm.isfinite()).float()
        self.skips.add_(torch.stack([skipped, torch.ones_like(skipped), torch.ones_like(skipped)]))
        self.skips[1:].mul_(torch.stack([skipped, not_finite]))
        self.norms.index_copy_(0, self._at % KEPT_NORMS, torch.where(ok, TAKEN, grad_norm).view(1).to(self.norms))
        self._at += 1

    @property
    def skipped_in_a_row(self) -> Tensor:
        """Number of skipped steps since the last one taken, a scalar on the device."""
        return self.skips[1]

    def share(self, processes: Processes) -> None:
        """Average the sums over all ranks, so that every rank has the same numbers."""
        processes.sum_(self.sums).div_(processes.world)

    def read(self, processes: Processes) -> Reading:
        """Return the means since the last call, and reset the sums."""
        self.share(processes)
        sums = self.sums.tolist()
        loss, nll, *kl, grad_norm, count = sums[: self.n_layers + 4]
        skipped, in_a_row, not_finite = self.skips.tolist()
        now, self._skipped_before = int(skipped) - self._skipped_before, int(skipped)
        norms = tuple(norm for norm in self.norms.tolist() if norm != TAKEN) if now else ()
        self.sums.zero_()
        self.norms.fill_(TAKEN)
        n = count or math.nan  # if all steps were skipped, the means are NaN
        return Reading(
            loss / n, nll / n, tuple(v / n for v in kl), grad_norm / n, int(count), int(skipped), int(in_a_row),
            dict(zip(self.extras, (v / n for v in sums[self.n_layers + 4 :]), strict=True)), norms, now,
            int(not_finite),
        )  # fmt: skip

    def skipped(self) -> int:
        """Number of steps skipped since the run began; waits for the device."""
        return int(self.skips[0])

    def state_dict(self) -> dict[str, Any]:
        state = {"sums": self.sums, "skips": self.skips, "extras": self.extras}
        return {**state, "norms": self.norms, "at": int(self._at), "skipped_before": self._skipped_before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.extras = list(state.get("extras", ()))
        self.sums = state["sums"].to(self.sums, copy=True)
        self.skips.zero_()
        self.skips[: len(state["skips"])].copy_(state["skips"])  # older versions did not tell why
        if "norms" in state:  # older versions kept none
            self.norms.copy_(state["norms"])
        else:
            self.norms.fill_(TAKEN)
        self._at.fill_(int(state.get("at", 0)))
        self._skipped_before = int(state.get("skipped_before", self.skipped()))
