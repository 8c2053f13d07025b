"""Generation: draws images from the prior, at one temperature per layer or at several settings of temperatures."""

import shutil
from dataclasses import replace

import torch

from lvae_torch.distributed.seeding import seed_of
from lvae_torch.distributions.noise import image_streams
from lvae_torch.models.contract import of_classes
from lvae_torch.models.sources import prior_sample
from lvae_torch.synthesis.codes import code_grid
from lvae_torch.synthesis.session import Session, n_rounds
from lvae_torch.synthesis.showing import MOST_ROWS, save_first, stored
from lvae_torch.synthesis.singles import SINGLES, save_singles
from lvae_torch.synthesis.temperatures import per_layer

STEP = 8
N_IMAGES = 64
PICTURE = "samples.png"


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """Write images as parts, uint8 (n, H, W, C), and a grid of the first ones.

    Each entry of ``temperatures`` gets its own folder (``setting_0`` and so on) and its own noise. Image k has a stream
    of noise of its own too: with another number of images the first ones are the same. A class-conditional model draws
    rows of one class each, and its parts have ``labels``, (n,), too.
    """
    options, n_layers = session.options, len(session.model.latent_shapes())
    settings = [per_layer(given, n_layers, "temperatures") for given in options.temperatures]
    n_images = options.n_images or _default(session)
    said: dict[str, object] = {"n_images": n_images, "draw": options.draw, **classes_told(session)}
    said |= _prior_told(session)
    _remove_earlier(session, is_of_settings=bool(settings))
    if not settings:
        temperatures = per_layer(options.temperature, n_layers)
        _generate(session, n_images, temperatures)
        return {**said, "temperatures": list(temperatures)}
    for k, temperatures in enumerate(settings):
        _generate(replace(session, out=session.out / f"setting_{k}"), n_images, temperatures, "setting", k)
    return {**said, "settings": [{"folder": f"setting_{k}", "temperatures": list(t)} for k, t in enumerate(settings)]}


def _generate(session: Session, n_images: int, temperatures: tuple[float, ...], *key: int | str) -> None:
    options = session.options
    size = options.batch_size
    parts = session.parts(0, "n_images", "batch_size")  # quick, so always made anew
    for j, count in n_rounds(session, n_images, size):
        shown = drawn(session, temperatures, j * size, count, *key)
        labels = session.chosen(range(j * size, j * size + count))
        classes = {} if labels is None else {"labels": labels.cpu().numpy()}
        parts.write(j, {**stored(shown), **classes})
        if options.save_singles:
            save_singles(session.out / SINGLES, range(j * size, j * size + count), shown)
    session.processes.barrier()
    if session.processes.is_main:
        save_first(session.out / PICTURE, parts, n_images, options.columns)


def _default(session: Session) -> int:
    """64 images, or a row of each class, as far as the picture shows them."""
    classes = session.chosen_classes
    return session.options.columns * min(len(classes), MOST_ROWS) if classes else N_IMAGES


def classes_told(session: Session) -> dict[str, object]:
    """The classes of the rows, in order; empty for an unconditional model."""
    return {"classes": [session.classes[k] for k in session.chosen_classes]} if session.chosen_classes else {}


def drawn(session: Session, temperatures: tuple[float, ...], first: int, count: int, *key: int | str) -> torch.Tensor:
    """Images ``first`` and so on, (count, C, H, W); which batch they are drawn in changes no more than rounding."""
    n = in_step(count, session.options.batch_size)
    seeds = [seed_of("generation", session.options.seed, *key, first + i) for i in range(n)]
    with image_streams(seeds, session.processes.device):
        source = prior_sample(temperatures) if session.prior is None else session.prior.source(n, temperatures[0])
        out = session.model(None, of_classes(source, session.chosen(range(first, first + n))), n=n)
        return session.picture_of(out.likelihood)[:count]


def in_step(count: int, size: int) -> int:
    """How many images are computed for ``count`` of a part of ``size``: some kernels round small batches otherwise."""
    step = min(STEP, size)
    return -(-count // step) * step


def _prior_told(session: Session) -> dict[str, object]:
    """The prior of the codes, for the results; empty for models without codes."""
    if session.prior is not None:
        return dict(session.prior.identity)
    return {"prior": "uniform; [synthesis] prior_run takes a trained one"} if code_grid(session.model) else {}


def _remove_earlier(session: Session, is_of_settings: bool) -> None:
    """Remove the folders of an earlier call; before settings of temperatures, also what it left beside them."""
    if is_of_settings:
        session.parts(0)
    if session.processes.is_main:
        for folder in session.out.glob("setting_*"):
            shutil.rmtree(folder)
        if is_of_settings:
            (session.out / PICTURE).unlink(missing_ok=True)
    session.processes.barrier()
