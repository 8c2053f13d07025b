"""What training, evaluation and synthesis take at most, found by running them without numbers; what to do for want."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from lvae_torch.distributed.memory import GIB, free_of, memory_of
from lvae_torch.elbo.bounds import Terms, elbo_terms
from lvae_torch.elbo.section import LossSection, ValSection
from lvae_torch.errors import OutOfMemory
from lvae_torch.models.contract import Model
from lvae_torch.models.sources import posterior_sample, prior_sample
from lvae_torch.training.costs import Allocations
from lvae_torch.training.initialization import unchanged
from lvae_torch.training.section import TrainSection

COUNTED = (2, 4)
"""Batch sizes that are run; memory grows evenly between them and beyond."""
NEGLIGIBLE = 0.03
"""What a pass takes for any number of images is a copy of a weight: below that share of it, one size will do."""
MOMENTS = 2
UPDATE_ON_CARD = 1 + MOMENTS + 1
"""Copies of the weights that an update on a card makes: weights and moments, to put them back, and one of Adamax's."""


@dataclass(frozen=True)
class Need:
    """Bytes: of the weights with what belongs to each, and of what lives in a pass."""

    weights: int
    fixed: int
    per_image: int
    least: int = 0
    """Bytes that come and go for any number of images: the optimizer's, when the pass is over."""

    def of(self, n_images: int) -> int:
        """The peak for so many images at once."""
        return self.weights + self.of_pass(n_images)

    def kept(self, n_images: int) -> int:
        """What a CUDA graph keeps of a card: to it, pass and update are apart, and so is whatever comes beside it."""
        return self.weights + self.least + self.fixed + n_images * self.per_image

    def of_pass(self, n_images: int) -> int:
        """The part of it that comes and goes with the pass."""
        return max(self.least, self.fixed + n_images * self.per_image)


@dataclass(frozen=True)
class Needs:
    """Of one device."""

    training: Need
    evaluation: Need
    synthesis: Need
    """Drawing images; modes that read images take what an evaluation does."""


def needs(
    model: Model,
    train: TrainSection,
    loss: LossSection,
    half: AbstractContextManager[object] | None = None,
    of_card: bool | None = None,
) -> Needs:
    """What ``model`` will need with these settings, found by running it on few images.

    Args:
        model: on the meta device it runs without numbers, and slower. Buffers stay, gradients do not.
        half: the context for half precision, which the meta device does not know; by default all is float32.
        of_card: what a card would need, whatever the model lies on; by default, whether it lies on one.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    device, n_bytes = parameters[0].device, sum(p.nbytes for p in parameters)
    if of_card is None:
        of_card = device.type == "cuda"
    largest = max(p.nbytes for p in parameters)
    held = n_bytes * (2 + MOMENTS + (train.ema_decay > 0))  # weights, gradients, moments, average
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)  # as in training, where all gradients are one vector
    repeats = loss.mc_samples * loss.iw_samples
    need = partial(_need, of_card=of_card)
    prior = prior_sample([1.0] * len(model.latent_shapes()))

    def evaluated(n: int) -> Terms:
        x = torch.zeros(n, *model.image_shape, device=device)
        with half or nullcontext():
            return elbo_terms(x, model.forward(x, model.of_any_class(posterior_sample, n)))  # not as it is compiled

    def drawn(n: int) -> Tensor:
        return model.forward(None, model.of_any_class(prior, n), n=n).likelihood.mean()

    with unchanged(model):
        model.train()
        training = need(lambda n: evaluated(n * repeats).nelbo.mean().backward(), held, largest)
        model.eval()
        with torch.no_grad():
            evaluation = need(evaluated, held, largest)
            synthesis = need(drawn, n_bytes, largest)
    if of_card:  # which holds gradients apart until a slice of them is complete: all of them, at worst
        training = replace(training, fixed=training.fixed + n_bytes, least=UPDATE_ON_CARD * n_bytes)
    return Needs(training, evaluation, synthesis)


def _need(run: Callable[[int], object], weights: int, largest: int, of_card: bool) -> Need:
    """The need of ``run``, of so many images, in a model whose largest weight takes ``largest`` bytes."""
    few, more = COUNTED
    peak = _peak(run, few, of_card)
    if largest < NEGLIGIBLE * peak:
        return Need(weights, 0, peak // few)
    per_image = (_peak(run, more, of_card) - peak) // (more - few)
    return Need(weights, peak - few * per_image, per_image)


def _peak(run: Callable[[int], object], n_images: int, of_card: bool) -> int:
    with Allocations(of_card) as allocations:
        run(n_images)
    return allocations.peak


def told_before(
    found: Needs, train: TrainSection, val: ValSection, synthesis_size: int, device: torch.device, world: int
) -> str:
    """What a run begins with: a line of what it will take, and a warning for what may not fit, with the remedy.

    Args:
        synthesis_size: images that synthesis draws at once.
    """
    planned = {
        "training": (found.training, train.batch_size // world // train.accumulate),
        "evaluation": (found.evaluation, val.batch_size),
        "synthesis": (found.synthesis, synthesis_size),
    }
    takes = ", ".join(f"{name} {_size(need.of(n))} ({n} images at once)" for name, (need, n) in planned.items())
    free = free_of(device)
    lines = [f"memory, about: {takes}" + (f"; {device} has {_size(free)} free" if free else "")]
    kept = 0
    for phase in ("training", "evaluation"):
        need, n = planned[phase]
        comes = need.kept(n) - need.weights if device.type == "cuda" else need.of_pass(n)
        if 0 < free < kept + comes:
            what, remedy = _too_much("training" if phase == "training" else "evaluating", train, val, world)
            lines.append(f"WARNING: {what}, which may not fit. Set {remedy}.")
        kept = comes if device.type == "cuda" else 0
    return "\n".join(lines)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes >= GIB else f"{n_bytes / 2**20:.0f} MiB"


def out_of_memory(phase: str, train: TrainSection, val: ValSection, device: torch.device, world: int) -> OutOfMemory:
    """What to tell where a training run found no more memory, with the keys to change and to what."""
    whole = memory_of(device)
    has = f"{device} has {whole / GIB:.1f} GiB" if whole else str(device)
    what, remedy = _too_much(phase, train, val, world)
    return OutOfMemory(
        f"There is not enough memory: {what}, and {has}. Set {remedy}, and repeat the command; what was saved stays. "
        "lvae info tells how much each needs."
    )


def _too_much(phase: str, train: TrainSection, val: ValSection, world: int) -> tuple[str, str]:
    """How many images are computed at once, and what makes them fewer."""
    if phase == "training":
        share = train.batch_size // world
        at_once = share // train.accumulate
        more = next((d for d in range(train.accumulate + 1, share + 1) if share % d == 0), None)
        ways = [f"[train] accumulate = {more} (the same batch, in smaller parts)"] if more else []
        ways += [f"batch_size = {max(1, at_once // 2) * world * train.accumulate}"] if at_once > 1 else []
        ways += [] if train.activation_checkpointing else ["activation_checkpointing = True (a third more time)"]
        what = f"training takes {at_once} images at once (batch_size = {train.batch_size}"
        what += f", {world} processes" if world > 1 else ""
        what += f", accumulate = {train.accumulate})" if train.accumulate > 1 else ")"
    else:
        key = "images" if phase == "drawing pictures" and val.images < val.batch_size else "batch_size"
        number = getattr(val, key)
        ways, what = [f"[val] {key} = {max(1, math.ceil(number / 2))}"], f"{phase} takes {number} images at once"
    return what, ", or ".join(ways) or "a smaller model"
