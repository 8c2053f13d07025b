"""What training, evaluation and synthesis take at most, found by running them without numbers; what to do for want."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lvae_torch.data.shapes import ImageShape
from lvae_torch.distributed.memory import memory_of
from lvae_torch.elbo.bounds import Terms, elbo_terms
from lvae_torch.elbo.section import LossSection, ValSection
from lvae_torch.errors import OutOfMemory
from lvae_torch.models.contract import Model
from lvae_torch.models.sources import posterior_sample, prior_sample
from lvae_torch.training.costs import Allocations
from lvae_torch.training.section import TrainSection

COUNTED = (2, 4)
"""Batch sizes that are run; memory grows evenly between them and beyond."""
MOMENTS = 2


@dataclass(frozen=True)
class Need:
    """Bytes: of the weights with what belongs to each, and of what lives in a pass."""

    weights: int
    fixed: int
    per_image: int

    def of(self, n_images: int) -> int:
        """The peak for so many images at once."""
        return self.weights + max(0, self.fixed + n_images * self.per_image)


@dataclass(frozen=True)
class Needs:
    """Of one device."""

    training: Need
    evaluation: Need
    synthesis: Need


def needs(build: Callable[[], Model], image_shape: ImageShape, train: TrainSection, loss: LossSection) -> Needs:
    """What a model will need with these settings, in float32: bfloat16 takes less.

    Args:
        build: makes the model.
    """
    with torch.device("meta"):  # tensors with shape and type, but no numbers
        model = build().train()
    if train.activation_checkpointing:
        model.rematerialize()
    parameters = [p for p in model.parameters() if p.requires_grad]
    n_bytes = sum(p.nbytes for p in parameters)
    held = n_bytes * (2 + MOMENTS + (train.ema_decay > 0))  # weights, gradients, moments, average
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)  # as in training, where all gradients are one vector
    repeats = loss.mc_samples * loss.iw_samples

    def evaluated(n: int) -> Terms:
        x = torch.empty(n, *image_shape, device="meta")
        return elbo_terms(x, model(x, model.of_any_class(posterior_sample, n)))

    training = _need(lambda n: evaluated(n * repeats).nelbo.mean().backward(), held)
    model.eval()
    with torch.no_grad():
        evaluation = _need(evaluated, held)
        prior = prior_sample([1.0] * len(model.latent_shapes()))
        drawn = _need(lambda n: model(None, model.of_any_class(prior, n), n=n).likelihood.mean(), n_bytes)
    read = Need(n_bytes, evaluation.fixed, evaluation.per_image)
    return Needs(training, evaluation, max(drawn, read, key=lambda need: need.per_image))


def _need(run: Callable[[int], object], weights: int) -> Need:
    peaks = []
    for n in COUNTED:
        with Allocations() as allocations:
            run(n)
        peaks.append(allocations.peak)
    per_image = (peaks[1] - peaks[0]) // (COUNTED[1] - COUNTED[0])
    return Need(weights, peaks[0] - COUNTED[0] * per_image, per_image)


def out_of_memory(phase: str, train: TrainSection, val: ValSection, device: torch.device, world: int) -> OutOfMemory:
    """What to tell where a training run found no more memory, with the keys to change and to what."""
    whole = memory_of(device)
    has = f"{device} has {whole / 2**30:.1f} GiB" if whole else str(device)
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
    remedy = ", or ".join(ways) or "a smaller model"
    return OutOfMemory(
        f"There is not enough memory: {what}, and {has}. Set {remedy}, and repeat the command; what was saved stays. "
        "lvae info tells how much each needs."
    )
