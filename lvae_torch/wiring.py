"""From checked settings to the things that rooms ask for. The only place, beside the families, that reads settings."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lvae_torch import __version__
from lvae_torch.data.dump import Dump
from lvae_torch.data.transforms import Preprocess
from lvae_torch.elbo.objective import (
    Objective,
    Schedule,
    constant_beta,
    linear_between,
    linear_warmup,
    logistic_growth,
    logistic_warmup,
)
from lvae_torch.errors import CfgError, DataError
from lvae_torch.hparams import Settings, whole
from lvae_torch.models.contract import Model
from lvae_torch.models.families import FAMILIES
from lvae_torch.runs.folder import RunFolder
from lvae_torch.training.optimization import LearningRate, learning_rate

ImageShape = tuple[int, int, int]
DENSITIES = ("gaussian", "recon_sse")
"""Likelihoods of values that need no levels."""


def run_folder(settings: Settings) -> RunFolder:
    return RunFolder(Path(settings.run.runs), settings.run.name)


def open_dump(settings: Settings) -> Dump:
    return Dump.open(Path(settings.data.dumps), settings.data.dataset)


def make_preprocess(settings: Settings, n_levels: int) -> Preprocess:
    """What turns what the dump holds into x.

    Raises:
        CfgError: if ``[data]`` asks for what only pixels in levels can have.
    """
    data = settings.data
    if not n_levels:
        given = {"binarize": data.binarize != "none", "n_bits": data.n_bits != 8, "dequantize": data.dequantize}
        if wrong := [key for key, is_given in given.items() if is_given]:
            raise CfgError(f"[data] {', '.join(wrong)}: {data.dataset} has values without levels; leave it out.")
    elif data.n_bits != 8 and n_levels != 256:
        raise CfgError(
            f"[data] n_bits = {data.n_bits}: {data.dataset} has {n_levels} levels, not 8 bits; leave it out."
        )
    if data.dequantize and data.binarize != "none":
        raise CfgError("[data] dequantize and binarize exclude each other; leave one out.")
    likelihood = getattr(settings.model, "likelihood", "of codes")
    if data.dequantize and likelihood not in DENSITIES:
        raise CfgError(
            f"[data] dequantize: the likelihood of [model], {likelihood}, is of levels, not a density; leave it out, "
            "or use gaussian."
        )
    return Preprocess(
        n_levels=n_levels, n_bits=data.n_bits, binarize=data.binarize, flip=data.flip, dequantize=data.dequantize
    )


def build_model(settings: Settings, image_shape: ImageShape, n_levels: int) -> Model:
    """The model of ``[model]``, on the current default device; ``n_levels`` as the preprocessing leaves them."""
    model: Model = FAMILIES[settings.model.family].build(settings.model, image_shape, n_levels)
    return model


def make_objective(settings: Settings, image_shape: ImageShape) -> Objective:
    loss = settings.loss
    return Objective(
        beta=_beta(loss.beta),
        free_bits=loss.free_bits,
        free_bits_mode=loss.free_bits_mode,
        kl_estimate=loss.kl_estimate,
        mc_samples=loss.mc_samples,
        iw_samples=loss.iw_samples,
        balance=loss.balance,
        balance_steps=whole(loss.balance_steps),
        n_dims=math.prod(image_shape) if loss.per_dimension else 1,
    )


def _beta(beta: Any) -> Schedule:
    match beta:
        case ("linear", steps):
            return linear_warmup(steps)
        case ("linear", first, last, minimum):
            return linear_between(first, last, minimum)
        case ("logistic", steps):
            return logistic_warmup(steps)
        case ("logistic", middle, rate):
            return logistic_growth(middle, rate)
        case _:
            return constant_beta(beta)


def make_learning_rate(settings: Settings) -> LearningRate:
    optimizer = settings.optimizer
    return learning_rate(
        optimizer.schedule,
        base=optimizer.learning_rate,
        total_steps=whole(settings.train.steps),
        warmup_steps=whole(optimizer.warmup_steps),
        decay_start=whole(optimizer.decay_start),
        decay_end=whole(optimizer.decay_end),
        final=optimizer.final_learning_rate,
        decay_rate=optimizer.decay_rate,
        decay_steps=whole(optimizer.decay_steps),
    )


def check_batch_shares(settings: Settings, world: int) -> None:
    """Hold the global batch against the number of processes.

    Raises:
        CfgError: if the global batch cannot be shared out evenly.
    """
    batch, parts = settings.train.batch_size, world * settings.train.accumulate
    if batch % parts:
        raise CfgError(
            f"[train] batch_size is {batch}, but {world} processes with accumulate = {settings.train.accumulate} need "
            f"a multiple of {parts}; batch_size counts the images of all processes together."
        )


UNKNOWN = "unknown"  # the content hash of a run that was taken over without its dump


def checkpoint_meta(settings_text: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says about itself: enough to build the model without the dump."""
    versions = {"lvae_torch": __version__, "torch": str(torch.__version__)}
    return {"settings": settings_text, "data": dict(data), "versions": versions}


def data_meta(dump: Dump, n_levels: int) -> dict[str, Any]:
    """What a checkpoint says about the images it was trained on."""
    return {
        "dataset": dump.dataset,
        "content_hash": dump.content_hash,
        "image_shape": list(dump.image_shape),
        "n_levels": n_levels,
        "codes_of": dump.provenance.get("codes_of"),
    }


def check_same_data(meta: Mapping[str, Any], dump: Dump) -> None:
    """Refuse to continue a run on other bytes than it began with.

    Raises:
        DataError: naming the dump.
    """
    began = meta["data"]
    if began["content_hash"] not in (UNKNOWN, dump.content_hash):
        raise DataError(
            f"{dump.folder}: this dump is not the one the run began with ({began['dataset']}, content hash "
            f"{began['content_hash'][:12]}; here {dump.content_hash[:12]}). Restore it, or start a run of another name."
        )
