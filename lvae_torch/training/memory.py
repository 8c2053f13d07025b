"""What training, evaluation and synthesis take at most, found by running them without numbers; what to do for want."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lvae_torch.distributed.memory import GIB, free_of, memory_of, memory_told
from lvae_torch.distributed.processes import Processes
from lvae_torch.elbo.bounds import Terms, elbo_terms
from lvae_torch.elbo.section import LossSection, ValSection
from lvae_torch.errors import OutOfMemory
from lvae_torch.models.contract import Model, Output
from lvae_torch.models.layout import copies
from lvae_torch.models.sources import posterior_sample, prior_sample
from lvae_torch.training.costs import Allocations, Known
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.half_weights import HalfWeights
from lvae_torch.training.initialization import unchanged
from lvae_torch.training.section import TrainSection
from lvae_torch.training.wrapping import autocast, half_weights

COUNTED = 16
"""So many images are run at most: then what is made of weights tells little, and what grows evenly with images much."""
COUNTED_ON_CARDS = 2
"""A card's memory is taken though nobody writes to it."""
NEGLIGIBLE = 0.03
"""Share of a pass: up to this, weights that kernels hold copies of are counted as if they grew with the images."""
MOMENTS = 2
UPDATE_ON_CARD = 1 + MOMENTS + 1
"""Copies of the weights that an update on a card makes: weights and moments, to put them back, and one of Adamax's."""
LARGEST_PASS = 8 * GIB
"""Of a pass that may be of any size, on a card: it has enough to do, and no map has 2^31 numbers, which is the limit of
many kernels."""


class AtOnce(NamedTuple):
    """Images that each process computes at once."""

    training: int
    evaluation: int
    synthesis: int

    @classmethod
    def of(cls, train: TrainSection, val: ValSection, synthesis_size: int, world: int = 1) -> "AtOnce":
        """As the settings say; ``synthesis_size`` is ``[synthesis] batch_size``."""
        return cls(train.batch_size // world // train.accumulate, val.batch_size, synthesis_size)


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
    at_once: AtOnce,
    half: HalfWeights | None = None,
    drawing: str = "float32",
    of_card: bool | None = None,
) -> Needs:
    """What ``model`` will need with these settings, found by running it without numbers.

    Args:
        model: on the meta device it runs in float32 alone. Buffers stay, gradients do not.
        half: what gives it half weights in training, where that is so.
        drawing: ``[synthesis] precision``.
        of_card: what a card would need, whatever the model lies on; by default, whether it lies on one.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    n_bytes = sum(p.nbytes for p in parameters)
    if of_card is None:
        of_card = parameters[0].is_cuda
    held = n_bytes * (2 + MOMENTS + (train.ema_decay > 0))  # weights, gradients, moments, average
    held += half.n_bytes if half else 0
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)  # as in training, where all gradients are one vector
    samples = loss.mc_samples * loss.iw_samples
    trained, evaluated, drawn = _passes(model, train.precision, half, drawing, samples)
    need = partial(_need, model=model, known={}, of_card=of_card)
    with unchanged(model):
        model.train()
        training = need(trained, held, at_once.training)
        model.eval()
        with torch.no_grad():
            evaluation = need(evaluated, held, at_once.evaluation)
            synthesis = need(drawn, n_bytes, at_once.synthesis)
    if of_card:  # which holds gradients apart until a slice of them is complete: all of them, at worst
        training = replace(training, fixed=training.fixed + n_bytes, least=UPDATE_ON_CARD * n_bytes)
    return Needs(training, evaluation, synthesis)


def needs_without_data(
    build: Callable[[], Model],
    train: TrainSection,
    loss: LossSection,
    at_once: AtOnce,
    drawing: str = "float32",
    of_card: bool = False,
) -> Needs:
    """``needs`` of the model that ``build`` makes, in one process; nothing is allocated for it."""
    with FakeTensorMode():  # tensors without data; unlike on the meta device, autocast works
        model = build()
        if train.activation_checkpointing:
            model.rematerialize()
        half = half_weights(train, model, FlatParameters(model))
        return needs(model, train, loss, at_once, half, drawing, of_card)


Pass = Callable[[int], object]
"""Of so many images."""


def _passes(
    model: Model, precision: str, half: HalfWeights | None, drawing: str, samples: int
) -> tuple[Pass, Pass, Pass]:
    """What training, with ``samples`` of each image, evaluation and synthesis do."""
    device = next(model.parameters()).device
    prior = prior_sample([1.0] * len(model.latent_shapes()))

    def images(n: int) -> Tensor:
        return torch.zeros(n, *model.image_shape, device=device)

    def passed(x: Tensor, half: HalfWeights | None = None, samples: int = 1) -> Output:
        source = model.of_any_class(posterior_sample, len(x) * samples)
        if half:
            return half(model, x, source, samples)
        return model.forward(x, source, samples=samples)  # not as it is compiled

    def trained(n: int) -> None:
        with autocast(precision, device):
            x = images(n)
            out = passed(x, half, samples)  # it and x are there until the end, as in a step
            nelbo = elbo_terms(copies(x, samples), out).nelbo.mean()
        nelbo.backward()
        if half:
            half.forget_gradients()

    def evaluated(n: int) -> Terms:
        return elbo_terms(x := images(n), passed(x))

    def drawn(n: int) -> Tensor:
        with autocast(drawing, device):
            likelihood = model.forward(None, model.of_any_class(prior, n), n=n).likelihood
        return likelihood.mean()

    return trained, evaluated, drawn


def _need(run: Pass, held: int, planned: int, model: Model, known: Known, of_card: bool) -> Need:
    """The need of a pass that is to take ``planned`` images, in a model that holds ``held`` bytes besides.

    Args:
        known: what operations make; those of this pass are added.
    """
    weights = list(model.parameters())
    fixed, largest = [*weights, *model.buffers()], max(w.nbytes for w in weights)
    few = min(planned, COUNTED_ON_CARDS if weights[0].is_cuda else COUNTED)
    with Allocations(fixed, known, of_card) as first:
        run(few)
    if largest <= NEGLIGIBLE * first.peak:
        return Need(held, first.fixed_at_peak, (first.peak - first.fixed_at_peak) // few)
    with Allocations(fixed, known, of_card) as second:
        run(2 * few)
    per_image = (second.peak - first.peak) // few
    return Need(held, first.peak - few * per_image, per_image)


def most_at_once(need: Need, beside: int, at_least: int, processes: Processes) -> int:
    """How many images a pass of any size takes at once; rank 0's card decides.

    Args:
        beside: bytes of a card that are taken already; the pass gets half of the others.
        at_least: the number on a CPU, where more are not faster.
    """
    if processes.device.type != "cuda":
        return at_least
    most = torch.tensor(fitting(need, memory_of(processes.device) - beside), device=processes.device)
    processes.broadcast_([most])
    return max(at_least, int(most))


def fitting(need: Need, free: int) -> int:
    """How many images a pass of any size takes at once on a card with so many bytes left."""
    return max(0, min(LARGEST_PASS, free // 2) - need.fixed) // max(1, need.per_image)


def told_before(
    found: Needs, at_once: AtOnce, train: TrainSection, val: ValSection, device: torch.device, world: int
) -> str:
    """What a run begins with: a line of what it will take, and a warning for what may not fit, with the remedy."""
    planned = {name: (getattr(found, name), n) for name, n in at_once._asdict().items()}
    takes = ", ".join(f"{name} {_size(need.of(n))} ({n} images at once)" for name, (need, n) in planned.items())
    free = free_of(device)
    lines = [f"memory, about: {takes}" + (f"; {device} has {_size(free)} free" if free else "")]
    kept = 0
    for phase in ("training", "evaluation"):
        need, n = planned[phase]
        comes = need.kept(n) - need.weights if device.type == "cuda" else need.of_pass(n)
        if 0 < free < kept + comes:
            what, remedy = _too_much("training" if phase == "training" else "evaluating", found, train, val, world)
            lines.append(f"WARNING: {what}, which may not fit. Set {remedy}.")
        kept = comes if device.type == "cuda" else 0
    return "\n".join(lines)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes >= GIB else f"{n_bytes / 2**20:.0f} MiB"


def out_of_memory(
    phase: str, found: Needs, train: TrainSection, val: ValSection, device: torch.device, world: int
) -> OutOfMemory:
    """What to tell where a training run found no more memory: the keys to change, to what, and what that will take."""
    what, remedy = _too_much(phase, found, train, val, world)
    return OutOfMemory(
        f"There is not enough memory: {what}, and {memory_told(device)}. Set {remedy}, and repeat the command; what "
        "was saved stays. lvae info tells how much each needs."
    )


def _too_much(phase: str, found: Needs, train: TrainSection, val: ValSection, world: int) -> tuple[str, str]:
    """How many images are computed at once, and what makes them fewer, with what each takes."""

    def takes(n: int) -> str:
        return f"about {_size((found.training if phase == 'training' else found.evaluation).of(n))}"

    if phase == "training":
        share = train.batch_size // world
        at_once = share // train.accumulate
        more = next((d for d in range(train.accumulate + 1, share + 1) if share % d == 0), None)
        ways, half = list[str](), max(1, at_once // 2)
        if more:
            ways.append(f"[train] accumulate = {more} (the same batch, in smaller parts: {takes(share // more)})")
        ways += [f"batch_size = {half * world * train.accumulate} ({takes(half)})"] if at_once > 1 else []
        ways += [] if train.activation_checkpointing else ["activation_checkpointing = True (a third more time)"]
        what = f"training takes {at_once} images at once, {takes(at_once)} (batch_size = {train.batch_size}"
        what += f", {world} processes" if world > 1 else ""
        what += f", accumulate = {train.accumulate})" if train.accumulate > 1 else ")"
    else:
        key = "images" if phase == "drawing pictures" and val.images < val.batch_size else "batch_size"
        number = getattr(val, key)
        fewer = max(1, math.ceil(number / 2))
        ways = [f"[val] {key} = {fewer} ({takes(fewer)})"]
        what = f"{phase} takes {number} images at once, {takes(number)}"
    return what, ", or ".join(ways) or "a smaller model"
