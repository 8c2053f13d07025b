"""Checkpoints of addtt/ladder-vae-pytorch, as boilr writes them: weights, and the flags of their run."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from lvae_torch.data.shapes import ImageShape
from lvae_torch.errors import CfgError, DataError
from lvae_torch.interop.cfg_text import cfg_text
from lvae_torch.interop.recognition import Found, Kind
from lvae_torch.interop.shapes import check_shapes
from lvae_torch.interop.spatial_lvae import LIKELIHOODS, reference_tensors
from lvae_torch.interop.spatial_lvae_names import neutral_names
from lvae_torch.interop.taken import Taken
from lvae_torch.interop.torch_files import check_sums
from lvae_torch.models.spatial_lvae.section import SpatialLVAESection

PROGRAM = "addtt/ladder-vae-pytorch"
DUMPS = {
    "static_mnist": ("binarized_mnist", (1, 28, 28), "bernoulli"),
    "cifar10": ("cifar10", (3, 32, 32), "discr_log_mix"),
    "svhn": ("svhn", (3, 32, 32), "discr_log_mix"),
    "celeba": ("celeba64_addtt", (3, 64, 64), "discr_log_mix"),
    "multi_dsprites_binary_rgb": ("multi_dsprites_published", (3, 64, 64), "bernoulli"),
    "multi_mnist_binary": ("multi_mnist_published", (1, 64, 64), "bernoulli"),
}
"""Its data sets: our dump, the shape of an image, and the likelihood where the flags name none.

Scenes it reads from addtt's own files, so the dumps are those of the files, not of scenes drawn anew.
"""
STEP = re.compile(r"model_(\d{1,12})\.pt")
Sections = dict[str, dict[str, Any]]


def read(found: Sequence[Found]) -> Taken:
    """The run in these files: one of weights and one of flags.

    Raises:
        DataError: if one of both is missing, or the weights are not those of such a model.
        CfgError: if the flags make no model of ours.
    """
    weights = [file for file in found if file.kind is Kind.LADDER_WEIGHTS]
    flags = [file for file in found if file.kind is Kind.LADDER_FLAGS]
    if not weights or not flags:
        missing = "config.pkl" if weights else "weights (model_*.pt)"
        raise DataError(f"{found[0].path}: of {PROGRAM}, but no {missing} beside; give the folder with both.")
    newest = max(weights, key=lambda file: _step(file.path))
    if len([file for file in weights if _step(file.path) == _step(newest.path)]) > 1:
        raise DataError(f"weights of several runs lie there ({', '.join(f.path.name for f in weights)}); give one.")
    check_sums(newest.path)
    sections = native_sections(flags[0].content, str(flags[0].path))
    named = _our_names(newest, sections)
    return Taken(
        program=PROGRAM,
        cfg=cfg_text(sections),
        cfg_name=str(flags[0].path),
        files=(newest.path,),
        images=_images(sections),
        step=_step(newest.path),
        raw=lambda: ((ours, newest.content[theirs]) for theirs, ours in named.items()),
        notes=("it saves no state of the optimizer: training would go on with new moments",),
    )


def _step(path: Path) -> int:
    match = STEP.fullmatch(path.name)
    return int(match[1]) if match else 0


def native_sections(flags: Mapping[str, Any], name: str) -> Sections:
    """section -> key -> value, of what differs from our defaults; the run still needs a name.

    Raises:
        CfgError: naming a flag that is missing, or a data set that we have not.
    """
    try:
        dataset = flags["dataset_name"]
        if dataset not in DUMPS:
            raise CfgError(f"{name}: dataset_name = {dataset!r} is none of {', '.join(DUMPS)}.")
        dump, _, likelihood = DUMPS[dataset]
        beta = int(flags["beta_anneal"])
        return {
            "run": {"seed": int(flags["seed"])},
            "data": {"dataset": dump},
            "model": {
                "family": "spatial_lvae",
                "z_channels": tuple(flags["z_dims"]),
                "downsample": tuple(flags["downsample"]),
                "initial_halving": not flags["no_initial_downscaling"],
                "n_filters": flags["n_filters"],
                "blocks_per_layer": flags["blocks_per_layer"],
                "nonlinearity": flags["nonlin"],
                "residual_type": flags["residual_type"],
                "batch_norm": not flags["no_batch_norm"],
                "dropout": float(flags["dropout"] or 0.0),
                "gated": flags["gated"],
                "skip": flags["skip_connections"],
                "merge": flags["merge_layers"],
                "learn_top_prior": flags["learn_top_prior"],
                "data_dependent_init": flags["simple_data_dependent_init"],
                "likelihood": LIKELIHOODS[flags.get("likelihood") or likelihood],
            },
            "loss": {
                "beta": ("linear", beta) if beta else 1.0,
                "free_bits": float(flags["free_bits"]),
                "kl_estimate": "analytic" if flags["analytical_kl"] else "sampled",
            },
            "optimizer": {
                "learning_rate": float(flags["lr"]),
                "weight_decay": float(flags["weight_decay"]),
                "clip_norm": flags.get("max_grad_norm"),
            },
            "train": {
                "steps": int(flags.get("max_steps") or 10**10),
                "batch_size": int(flags["batch_size"]),
                "ema_decay": 0.0,
                "checkpoint_every": int(flags["checkpoint_every"]),
            },
            "val": {"every": int(flags["test_log_every"]), "batch_size": int(flags["test_batch_size"])},
        }
    except KeyError as error:
        raise CfgError(f"{name}: the flags of {PROGRAM} have no {error}.") from error
    except (TypeError, ValueError) as error:
        raise CfgError(f"{name}: a flag of {PROGRAM} has a value of another kind ({error}).") from error


def _images(sections: Sections) -> tuple[ImageShape, int]:
    image_shape = next(shape for dump, shape, _ in DUMPS.values() if dump == sections["data"]["dataset"])
    return image_shape, 2 if sections["model"]["likelihood"] == "bernoulli" else 256


def _our_names(file: Found, sections: Sections) -> dict[str, str]:
    """Its names -> those in a state dict of ours."""
    try:
        section = SpatialLVAESection(**sections["model"])
    except ValidationError as error:
        told = "; ".join(str(detail["msg"]).removeprefix("Value error, ") for detail in error.errors())
        raise CfgError(f"the flags beside {file.path} make no model: {told}.") from error
    with torch.device("meta"):
        model = section.build(*_images(sections))
    names = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items()}
    ours = {neutral: names[id(tensor)] for neutral, tensor in reference_tensors(model)}
    theirs = neutral_names(file.content)
    expected = {neutral: tuple(tensor.shape) for neutral, tensor in reference_tensors(model)}
    found = {neutral: tuple(file.content[name].shape) for name, neutral in theirs.items()}
    check_shapes(expected, found, f"{file.path}: these weights do not belong to the flags beside them")
    return {name: ours[neutral] for name, neutral in theirs.items()}
