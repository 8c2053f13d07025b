"""One training step, in which the host never waits for the device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from lvae_torch.data.labelled import Labelled
from lvae_torch.distributed.graph import Graphed, Inputs, Outputs
from lvae_torch.elbo.bounds import Terms
from lvae_torch.elbo.objective import Objective
from lvae_torch.models.contract import Model, Output, Source, of_classes
from lvae_torch.models.sources import posterior_sample
from lvae_torch.runs.checkpoint import About, Checkpoint, State, Weights
from lvae_torch.training.ema import Ema
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.half_weights import HalfWeights
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import GuardedStep, LearningRate, check_moments, keep_where, without_jump
from lvae_torch.training.reduction import GradientSlices
from lvae_torch.training.section import OptimizerSection

SHORT, PIECE = 2**20, 2**16


def gradient_norm(gradient: Tensor) -> Tensor:
    """The norm of one long vector, (), float32.

    On a CPU PyTorch adds the squares up one after the other: at 209 million numbers the norm is 3 % too small. The norm
    of the norms of pieces is right to six digits, at any length. Apple's GPUs know no float64.
    """
    if gradient.device.type != "cpu" or gradient.numel() <= SHORT:
        return get_total_norm([gradient])
    norms = torch.stack([torch.linalg.vector_norm(piece) for piece in gradient.split(PIECE)])
    return torch.linalg.vector_norm(norms, dtype=torch.float64).to(gradient.dtype)


@dataclass
class TrainStep:
    """Raw uint8 batch -> updated weights. A step with a bad gradient changes no weight, moment, statistic or average.

    It counts as skipped.
    """

    section: OptimizerSection
    bare: Model
    flat: FlatParameters
    ema: Ema | None
    objective: Objective
    optimizer: Optimizer
    learning_rate: LearningRate
    meter: Meter
    preprocess: Callable[[Tensor], Tensor]
    """Raw batch -> x in [0, 1], with this step's augmentation and binarization."""
    accumulate: int = 1
    """Number of parts in which a batch is computed."""
    autocast: AbstractContextManager[object] | None = None
    slices: GradientSlices | None = None
    """Of the flat gradient: where there are several ranks, or collecting gradients pays."""
    half: HalfWeights | None = None
    """With ``autocast``: gives the layers their weights in half precision, converted all at once."""
    origin: int = 0
    """The step from which the schedules count."""
    rate_from: Sequence[float] = (0, 0.0, 0)
    """A step, the learning rate there, and the steps that lead from it to the schedule."""
    rate_factor: float = 1.0
    """Of the run, after it diverged."""
    is_graphed: bool = False
    """Whether to replay the step as one CUDA graph."""
    compiler: str | None = None
    """The backend of torch.compile that makes one program of preprocessing, model and loss; None for none."""

    def __post_init__(self) -> None:
        self._computed = torch.compile(self._loss, backend=self.compiler) if self.compiler else self._loss
        self._guarded = GuardedStep(self.optimizer, self.flat)
        self._graphed = Graphed(self._take, "the step") if self.is_graphed else None
        self._was_balanced = False
        self._scalars = self.flat.vector.new_zeros(3)  # learning rate, beta and the share of the EMA, of this step

    def __call__(self, raw: Tensor, step: int, labels: Tensor | None = None) -> None:
        """Train on ``raw``, (b, H, W, C), this rank's share of the global batch of ``step``, and its classes, (b,)."""
        self._set_scalars(step)
        is_balanced = self.objective.is_balanced(step - self.origin)
        if self._graphed is None:
            self._take((raw, labels), is_balanced)
            return
        if is_balanced != self._was_balanced:
            self._graphed.forget()
        self._was_balanced = is_balanced
        self._graphed((raw, labels), is_balanced)

    def _set_scalars(self, step: int) -> None:
        """Put what the schedules say of ``step`` where the device finds it, in one copy."""
        rate, share = self.rate_at(step), 0.0 if self.ema is None else self.ema.share_at(step)
        values = torch.tensor([rate, self.objective.beta(step - self.origin), share], dtype=self._scalars.dtype)
        if self._scalars.is_cuda:  # pinned: the host does not wait, and keeps the values until they are copied
            values = values.pin_memory()
        self._scalars.copy_(values, non_blocking=True)
        for group in self.optimizer.param_groups:  # on a CPU PyTorch computes with the rate in double precision
            group["lr"] = self._scalars[0] if self._scalars.is_cuda else rate

    def _take(self, batch: Inputs, is_balanced: bool) -> Outputs:
        """The step: a function of tensors alone, but for whether the objective balances layers. It returns nothing."""
        buffers = [vector.clone() for vector in self.flat.buffers]
        loss, terms = self._backward(batch, is_balanced)
        # The gradients are the mean over all ranks, so all see the same norm and decide alike.
        norm = gradient_norm(self.flat.gradient)
        ok = self._accepts(norm)
        if limits := [limit for limit in (self.section.clip_norm, self.section.skip_norm) if limit is not None]:
            clip_grads_with_norm_([self.flat.vector], min(limits), norm)
        self._guarded(ok)
        with torch.no_grad():
            keep_where(ok, self.flat.buffers, buffers)
            self.meter.add(loss, terms, norm, ok)
        if self.ema is not None:
            self.ema.update(self.flat, self._scalars[2], ok)
        return {}

    def rate_at(self, step: int) -> float:
        """The learning rate of ``step``: the schedule's, without a jump where the length of that has changed."""
        return without_jump(self.learning_rate, self.rate_from, self.origin)(step) * self.rate_factor

    def follow(self, state: State, rollback_rate: float) -> None:
        """Take from ``state`` what the learning rate and the schedules depend on."""
        self.origin, self.rate_from = state.origin, state.rate_from
        self.rate_factor = rollback_rate**state.rollbacks

    def _accepts(self, norm: Tensor) -> Tensor:
        """Whether to take the step: too large a gradient norm is skipped, unless too many steps in a row were.

        The step is then clipped to ``skip_norm``: without any change of the weights the gradients would stay large.
        """
        if self.section.skip_norm is None:
            return norm.isfinite()
        is_stuck = self.meter.skipped_in_a_row >= self.section.max_skips_in_a_row
        return (norm < self.section.skip_norm) | (is_stuck & norm.isfinite())  # NaN < s is false

    def checkpoint(self, state: State, about: About, unfinished: Mapping[str, Any] | None = None) -> Checkpoint:
        """Everything that training changes, with what it is of, and an evaluation that was stopped."""
        ema = None if self.ema is None else self.ema.model.state_dict()
        moments, meter = self.optimizer.state_dict(), self.meter.state_dict()
        for group in moments["param_groups"]:
            group["lr"] = float(group["lr"])
        is_aged = self.ema is not None and self.ema.is_aged
        return Checkpoint(self.bare.state_dict(), ema, moments, meter, state, about, is_aged, unfinished)

    @property
    def evaluated(self) -> Model:
        """The model that evaluation and inference use."""
        return self.bare if self.ema is None else self.ema.model

    @contextmanager
    def evaluated_with(self, weights: Weights) -> Iterator[None]:
        """Inside, ``evaluated`` has these weights."""
        own = {name: tensor.clone() for name, tensor in self.evaluated.state_dict().items()}
        self.evaluated.load_state_dict(weights)
        try:
            yield
        finally:
            self.evaluated.load_state_dict(own)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore everything from ``checkpoint``; an EMA that was switched on since begins at the weights.

        Raises:
            DataError: if the optimizer's state is of other weights than those that are trained.
        """
        if self._graphed is not None:
            self._graphed.forget()
        self.bare.load_state_dict(checkpoint.model)
        if self.ema is not None:
            self.ema.model.load_state_dict(checkpoint.weights())
            self.ema.is_aged = checkpoint.ema_is_aged
        if checkpoint.optimizer is not None:
            check_moments(checkpoint.optimizer, self.flat.vector)
            # Moments from the checkpoint; betas, weight decay and what suits this device from today's settings.
            (ours,), (saved,) = self.optimizer.state_dict()["param_groups"], checkpoint.optimizer["param_groups"]
            groups = [ours | {"lr": saved["lr"]}]  # of the last step: a checkpoint made before the next one says so too
            self.optimizer.load_state_dict({"state": checkpoint.optimizer["state"], "param_groups": groups})
        self.meter.load_state_dict(checkpoint.meter)

    def _backward(self, batch: Inputs, is_balanced: bool) -> tuple[Tensor, Terms]:
        self.flat.gradient.zero_()
        if self.half is not None:
            self.half.refresh()
        raw, labels = batch
        assert raw is not None
        losses, parts = [], Labelled(raw, labels).chunk(self.accumulate)
        all_terms: list[Terms] = []
        for k, part in enumerate(parts):
            with self.autocast or nullcontext():
                loss, terms = self._computed(part.images, part.labels, self._scalars[1], is_balanced)
            with self._passing(is_last=k == len(parts) - 1):
                (loss / len(parts)).backward()
            losses.append(loss.detach())
            all_terms.append(terms)
        return torch.stack(losses).mean(), Terms.joined(all_terms)

    def _loss(self, raw: Tensor, labels: Tensor | None, beta: Tensor, is_balanced: bool) -> tuple[Tensor, Terms]:
        """The loss of a part of a batch and, without gradients, its terms."""
        x = self.preprocess(raw)
        labels = None if labels is None else self.objective.repeated(labels)
        out = self._passed(x, of_classes(posterior_sample, labels))
        loss, terms = self.objective.weighted(self.objective.repeated(x), out, beta, is_balanced)
        return loss, terms.detached()

    def _passed(self, x: Tensor, source: Source) -> Output:
        samples = self.objective.samples
        if self.half is not None:
            return self.half(self.bare, x, source, samples)
        out: Output = self.bare(x, source, samples=samples)
        return out

    def _passing(self, is_last: bool) -> AbstractContextManager[object]:
        """Ranks exchange gradients in the last part of an accumulated batch only."""
        return nullcontext() if self.slices is None else self.slices.passing(is_last)
