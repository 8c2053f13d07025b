"""The weights that training begins with, held against a uniform guess before the first step.

Data-dependent initialisation scales each layer by what one batch makes of it. A batch that is nearly blank makes next
to nothing, the scales become huge, and the first image with something in it explodes.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch

from lvae_torch.data.labelled import Labelled
from lvae_torch.data.run_data import RunData
from lvae_torch.distributed.memory import is_out_of_memory, memory_told
from lvae_torch.distributed.place import in_float64
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.errors import OutOfMemory, say
from lvae_torch.models.contract import Model, of_classes
from lvae_torch.models.sources import posterior_sample
from lvae_torch.training.section import TrainSection

LEAST_IMAGES = 16
"""How many images at least the first loss is measured on, and a second try of the initialisation sees."""
FAR = 5.0
"""Uniform guesses: with a first loss above that, data-dependent weights are drawn anew."""
ODD = 20.0
"""Uniform guesses: above that, the first loss is told."""
MOST_PER_VALUE = 1000.0
"""Nats per pixel value: stands for the uniform guess where values have no levels."""
BOUND = 5.0
"""The most that a second try scales a layer up or down."""


def initialize(model: Model, data: RunData, seed: int, tell: Callable[[str], None] = say) -> None:
    """Give ``model``, newly made, the weights of step 0, from the data where its family asks for that.

    The first batch decides, as published, unless the first loss on images with something in them is far above that of
    a uniform guess. Then images that are spread over the set do, each layer is scaled by ``BOUND`` at most, and if that
    does not help either, the weights stay as they were drawn.
    """
    device = next(model.parameters()).device
    first = data.first_batch(device)
    if not model.starts_from_data:
        model.initialize(first.images, labels=first.labels)
        return
    telling = data.telling(max(LEAST_IMAGES, len(first)), device)
    if bool((telling.images == telling.images.flatten()[0]).all()):
        tell("All images are alike, one value everywhere: the initial weights are not scaled to them.")
        return
    drawn = deepcopy(model.state_dict())
    model.initialize(first.images, labels=first.labels)
    guess, found = uniform_guess(model, data.levels), first_loss(model, telling, seed)
    if found <= FAR * guess:
        return
    model.load_state_dict(drawn)
    seed_everything("initialization", seed, "again")
    model.initialize(telling.images, BOUND, telling.labels)
    again = first_loss(model, telling, seed)
    how = f"the weights were scaled to {len(telling)} images spread over the set, by {BOUND:g} at most"
    if not again <= FAR * guess:
        model.load_state_dict(drawn)
        again, how = first_loss(model, telling, seed), "the weights stay as they were drawn"
    tell(
        f"The first batch tells too little for the initial weights (-ELBO {found:.3g} nats; a uniform guess: "
        f"{guess:.3g}): {how} (-ELBO {again:.3g})."
    )


@contextmanager
def first_passes_watched(train: TrainSection, device: torch.device) -> Iterator[None]:
    """Inside, where the initial weights find no memory, the error says what to change.

    Raises:
        OutOfMemory: naming the keys and their values.
    """
    try:
        yield
    except Exception as reason:
        if not is_out_of_memory(reason):
            raise
        raise OutOfMemory(
            "There is not enough memory for the initial weights: where they follow from data, each process takes the "
            f"whole first batch at once ([train] batch_size = {train.batch_size}, whatever accumulate is), and "
            f"{memory_told(device)}. Set batch_size = {max(1, train.batch_size // 2)}, make [model] smaller, or draw "
            "weights without data (data_dependent_init = False, or start = 'uniform', where the family has it), and "
            "repeat the command. lvae info tells how much each needs."
        ) from reason


def check_first_loss(
    model: Model, data: RunData, seed: int, tell: Callable[[str], None] = say, at_once: int = LEAST_IMAGES
) -> None:
    """Tell if training is about to begin far above a uniform guess, or without a number at all.

    All ranks must call it: in training mode a model may exchange sums with the others, as codebooks do.

    Args:
        at_once: images that a step takes at once; here, without gradients, fewer than twice as many are.
    """
    device = next(model.parameters()).device
    images = data.telling(LEAST_IMAGES, device)
    parts = torch.arange(len(images)).tensor_split(max(1, len(images) // at_once))
    found = sum(len(part) * first_loss(model, images.at(part), seed) for part in parts) / len(images)
    guess = uniform_guess(model, data.levels)
    if not found <= ODD * guess:
        told = f"{found:,.0f} nats per image" if math.isfinite(found) else "not finite"
        looks = f"look at the images (lvae show {data.dump.folder})"
        if not data.levels:
            image, value = data.farthest(LEAST_IMAGES)
            looks = f"leave images out like number {image} of the training split, which has a value of {value:g}"
        tell(
            f"Before the first step the -ELBO is {told}; a uniform guess has {guess:,.0f}. Expect skipped steps: "
            f"{looks}, lower [optimizer] learning_rate, or set clip_norm."
        )


def uniform_guess(model: Model, n_levels: int) -> float:
    """-log p(x) of a uniform distribution, nats per image; a generous stand-in where values have no levels."""
    n_values = math.prod(model.image_shape)
    return n_values * (math.log(n_levels) if n_levels > 1 else MOST_PER_VALUE)


@torch.no_grad()
def first_loss(model: Model, batch: Labelled, seed: int) -> float:
    """Mean -ELBO of images x, (B, C, H, W), as in training, nats; changes nothing in the model."""
    seed_everything("first loss", seed)
    x, source = batch.images, of_classes(posterior_sample, batch.labels)
    with unchanged(model):
        nelbo = elbo_terms(x, model.train()(x, source)).nelbo
        return float(in_float64(nelbo).mean())


@contextmanager
def unchanged(model: Model) -> Iterator[None]:
    """Afterwards buffers and mode of ``model`` are as before."""
    before, was_training = [buffer.clone() for buffer in model.buffers()], model.training
    try:
        yield
    finally:
        model.train(was_training)
        for buffer, old in zip(model.buffers(), before, strict=True):
            buffer.copy_(old)
