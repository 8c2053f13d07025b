"""Models of openai/vdvae as models of ours: its hyper-parameters, and the names of its weights."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lvae_torch.data.shapes import ImageShape
from lvae_torch.errors import CfgError, DataError
from lvae_torch.interop.weights import copy_weights
from lvae_torch.models.vdvae.model import VDVAE
from lvae_torch.models.vdvae.section import VDVAESection

Values = Mapping[str, Any]
COLOURS, LEVELS = 3, 256  # of all its data


@dataclass(frozen=True)
class Dataset:
    """One of its data sets: our dump of it, and what it does with 8-bit pixels."""

    dump: str
    side: int
    mean: float
    std: float
    bits: int = 8
    """Of the likelihood; the networks see all 8."""
    test_split: str = "test"


DATASETS = {
    "cifar10": Dataset("cifar10_vdvae", 32, 120.63838, 64.16736),
    "imagenet32": Dataset("imagenet32_oord_vdvae", 32, 116.2373, 69.37404),
    "imagenet64": Dataset("imagenet64_oord_vdvae", 64, 115.92961967, 69.37404),
    "ffhq_256": Dataset("ffhq256_vdvae", 256, 112.8666757481, 69.84780273, bits=5, test_split="valid"),
    "ffhq_1024": Dataset("ffhq1024_vdvae", 1024, 0.4387 * 255, 0.2743 * 255, test_split="valid"),
}


def from_reference(hparams: Values, weights: Values) -> VDVAE:
    """The original's model, in evaluation mode, with its own approximations in the likelihood.

    Args:
        hparams: the original's hyper-parameters; those of the model and ``dataset`` matter.
        weights: arrays or tensors under the original's names, with or without ``module.`` in front.
    Raises:
        CfgError: if these make no model.
        DataError: listing every weight that is missing, left over, or of another shape.
    """
    section = section_from_reference(hparams).model_copy(update={"bins": "overlapping_closed"})  # alike at 8 bits
    model = section.make(image_shape_of(hparams), LEVELS, reference=True)
    copy_weights(dict(model.named_parameters()), renamed(weights))
    return model.eval()


def image_shape_of(hparams: Values) -> ImageShape:
    """(C, H, W) of the images."""
    side = hparams.get("image_size") or dataset_of(hparams).side
    if type(side) is not int or side < 1:
        raise CfgError(f"image_size = {side!r} of openai/vdvae is no side of an image.")
    return COLOURS, side, side


def dataset_of(hparams: Values) -> Dataset:
    """The data set that it was trained on.

    Raises:
        CfgError: if there is none of that name.
    """
    name = hparams.get("dataset")
    if not isinstance(name, str) or name not in DATASETS:
        raise CfgError(f"dataset = {name!r} is no data set of openai/vdvae; it has {', '.join(DATASETS)}.")
    return DATASETS[name]


def section_from_reference(hparams: Values) -> VDVAESection:
    """Our ``[model]`` section from the original's hyper-parameters.

    Raises:
        CfgError: naming a missing key, or what does not fit together.
    """
    dataset = dataset_of(hparams)
    try:
        return VDVAESection(
            enc_blocks=hparams["enc_blocks"],
            dec_blocks=hparams["dec_blocks"],
            width=hparams["width"],
            custom_width_str=hparams["custom_width_str"],
            bottleneck_multiple=hparams["bottleneck_multiple"],
            z_channels=hparams["zdim"],
            no_bias_above=hparams["no_bias_above"],
            n_mixtures=hparams["num_mixtures"],
            likelihood_bits=dataset.bits,
            input_mean=dataset.mean,
            input_std=dataset.std,
        )
    except KeyError as error:
        raise CfgError(f"the hyper-parameters of openai/vdvae have no {error}; give all of its model.") from error
    except ValidationError as error:
        told = "\n  ".join(f"{'.'.join(map(str, detail['loc']))} {detail['msg']}" for detail in error.errors())
        raise CfgError(f"these hyper-parameters make no model of openai/vdvae:\n  {told}") from error


WHOLE_NAMES = {
    "decoder.gain": "gain",
    "decoder.bias": "bias",
    "encoder.in_conv.weight": "input_conv.weight",
    "encoder.in_conv.bias": "input_conv.bias",
    "decoder.out_net.out_conv.weight": "output_conv.weight",
    "decoder.out_net.out_conv.bias": "output_conv.bias",
}
NAMES = [
    (re.compile(r"encoder\.enc_blocks\.(\d+)\.(c[1-4]\.(?:weight|bias))"), r"bottom_up.\1.block.\2"),
    (re.compile(r"decoder\.dec_blocks\.(\d+)\.enc\.(c[1-4]\.(?:weight|bias))"), r"top_down.\1.posterior.\2"),
    (re.compile(r"decoder\.dec_blocks\.(\d+)\.((?:prior|resnet)\.c[1-4]\.(?:weight|bias))"), r"top_down.\1.\2"),
    (re.compile(r"decoder\.dec_blocks\.(\d+)\.(z_proj\.(?:weight|bias))"), r"top_down.\1.\2"),
    (re.compile(r"decoder\.bias_xs\.(\d+)"), r"bias_maps.\1"),
]
"""Their names, and ours."""
WRAPPED = "module."  # what DistributedDataParallel puts in front of names


def our_name(name: str) -> str | None:
    """Our parameter of that name in the original, with or without ``module.``; None if it has none such."""
    name = name.removeprefix(WRAPPED)
    if name in WHOLE_NAMES:
        return WHOLE_NAMES[name]
    return next((pattern.sub(ours, name) for pattern, ours in NAMES if pattern.fullmatch(name)), None)


def neutral_names(names: Iterable[str]) -> dict[str, str]:
    """From the original's names to ours.

    Raises:
        DataError: listing the names that no such model has.
    """
    found = {name: our_name(name) for name in names}
    if unknown := [name for name, ours in found.items() if ours is None]:
        raise DataError(f"no weights of openai/vdvae: {', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}.")
    return {name: ours for name, ours in found.items() if ours is not None}


def renamed(values: Values) -> dict[str, Any]:
    """The same under our names."""
    names = neutral_names(values)
    return {names[name]: value for name, value in values.items()}
