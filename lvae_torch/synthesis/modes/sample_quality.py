"""Sample quality: FID, KID, Inception score, precision and recall of samples, and FID and KID of reconstructions.

With another extractor than the published Inception the same measures have other names, for they do not compare.
"""

from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from lvae_torch.data.order import spread
from lvae_torch.errors import say
from lvae_torch.models.sources import posterior_sample
from lvae_torch.synthesis import quality
from lvae_torch.synthesis.extractors import Extractor, check_library, load_extractor
from lvae_torch.synthesis.features import (
    Collection,
    Features,
    check_pictures,
    collection_in_run,
    collection_of_split,
)
from lvae_torch.synthesis.modes.generation import classes_told, drawn
from lvae_torch.synthesis.session import Session
from lvae_torch.synthesis.temperatures import per_layer

ENOUGH = 10_000
"""Images from which on these measures are customary: with fewer they are larger, for the same model."""
NAMES = {True: ("fid", "kid", "inception_score"), False: ("frechet_distance", "kernel_distance", "classifier_score")}
"""Names of the measures, by whether the extractor is the published Inception."""


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """Compare ``quality_images`` samples, and as many reconstructions, with the split.

    The samples are the images of ``generation`` with the same options. An interrupted mode goes on after its last whole
    part; features of a split are kept for all runs.
    """
    check_library()
    check_pictures(session)
    extractor = load_extractor(session.options.extractor, session.processes.device)
    collections = {"reference": collection_of_split(session, extractor)}
    collections |= _made(session, extractor)
    for collection in collections.values():
        collection.compute(session, extractor)
    if not session.processes.is_main:
        return {}
    with session.scratch() as folder:
        read = {what: collection.read(folder) for what, collection in collections.items()}
        measured = _measured(session, read, extractor.is_inception)
    return {**measured, **_warning(collections), "protocol": _protocol(session, extractor, collections)}


def _made(session: Session, extractor: Extractor) -> dict[str, Collection]:
    """What the model makes: samples, and reconstructions if it has latents."""
    options = session.options
    temperatures = per_layer(options.temperature, len(session.model.latent_shapes()))
    shown = {"draw": options.draw, "output_temperature": options.output_temperature}

    def samples(first: int, count: int) -> Tensor:
        return drawn(session, temperatures, first, count)

    indices = session.images.indices
    chosen = indices[spread(len(indices), options.quality_images)]

    def reconstructions(first: int, count: int) -> Tensor:
        at = chosen[first : first + count]
        x = session.x_at(at, "posterior", first)
        return session.picture_of(session.passed(x, at, posterior_sample).likelihood, first)

    prior = {} if session.prior is None else dict(session.prior.identity)
    said = {**shown, "temperatures": list(temperatures), **prior, **_classes(session)}
    made = {"samples": collection_in_run(session, "samples", options.quality_images, samples, extractor, said)}
    if session.model.latent_shapes():
        what = "reconstructions"
        made[what] = collection_in_run(session, what, len(chosen), reconstructions, extractor, shown)
    return made


def _classes(session: Session) -> dict[str, object]:
    """Which class each sample is of; empty for an unconditional model."""
    told = classes_told(session)
    return {**told, "columns": session.options.columns} if told else {}


def _measured(session: Session, read: dict[str, Features], is_inception: bool) -> dict[str, object]:
    distance, kernel, score = NAMES[is_inception]
    device = session.processes.device
    reference, samples = read["reference"].features, read["samples"].features
    of_reference = quality.moments(reference, device)
    kernel_mean, kernel_std = quality.kernel_distance(samples, reference)
    score_mean, score_std = quality.score(read["samples"].logits)
    precision, recall = quality.precision_and_recall(samples, reference, device)
    measured: dict[str, object] = {
        distance: quality.frechet_distance(quality.moments(samples, device), of_reference),
        kernel: kernel_mean,
        f"{kernel}_error": kernel_std,
        score: score_mean,
        f"{score}_error": score_std,
        "precision": precision,
        "recall": recall,
    }
    if "reconstructions" in read:
        shown = read["reconstructions"].features
        kernel_mean, kernel_std = quality.kernel_distance(shown, reference)
        name = "of_reconstructions"
        measured[f"{distance}_{name}"] = quality.frechet_distance(quality.moments(shown, device), of_reference)
        measured |= {f"{kernel}_{name}": kernel_mean, f"{kernel}_{name}_error": kernel_std}
    return measured


def _warning(collections: dict[str, Collection]) -> dict[str, str]:
    few = {what: collection.n for what, collection in collections.items() if collection.n < ENOUGH}
    if not few:
        return {}
    told = ", ".join(f"{n:,} {what}" for what, n in few.items())
    warning = f"fewer than {ENOUGH:,} images ({told}): distances are larger than those of more, and do not compare"
    say(f"sample_quality: {warning}.")
    return {"warning": warning}


def _protocol(session: Session, extractor: Extractor, collections: dict[str, Collection]) -> dict[str, Any]:
    """Everything that the numbers depend on."""
    options = session.options
    counts = {what: collection.n for what, collection in collections.items()}
    return {
        "reference": {key: session.identity[key] for key in ("dataset", "split", "content", "preprocessing")},
        "images": counts,
        "bit_depth": 8,
        "image_shape": list(session.model.image_shape),
        "resize": extractor.resize,
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "temperatures": list(per_layer(options.temperature, len(session.model.latent_shapes()))),
        **_classes(session),
        "draw": options.draw,
        "output_temperature": options.output_temperature,
        "seed": options.seed,
        "kernel": f"cubic; {quality.SUBSETS} subsets of "
        f"{quality.subset_size(counts['reference'], counts['samples'])} images; the error is their standard deviation",
        "score": f"{min(quality.SPLITS, counts['samples'])} splits; the error is their standard deviation",
        "precision_recall": f"{quality.NEIGHBOURS} nearest neighbours",
        "library": f"torch-fidelity {version('torch-fidelity')}, seed {quality.LIBRARY_SEED}",
    }
