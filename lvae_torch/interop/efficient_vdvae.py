"""Converts models of the original Efficient-VDVAE (Rayhane-mamah/Efficient-VDVAE, PyTorch) to ours.

Weights are passed under neutral names, which are the names of our parameters: stages and blocks are counted from 0 in
the order of each pass, and the last bottom-up block of a stage is the one that pools. ``neutral_names`` translates
the names in checkpoints of the original.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lvae_torch.cfg.expressions import evaluate
from lvae_torch.cfg.reader import read_file
from lvae_torch.data.shapes import ImageShape
from lvae_torch.errors import CfgError, DataError
from lvae_torch.interop.weights import copy_weights
from lvae_torch.models.efficient_vdvae.model import EfficientVDVAE
from lvae_torch.models.efficient_vdvae.section import EfficientVDVAESection
from lvae_torch.models.efficient_vdvae.stages import Cells, DownStage, UpStage, check_towers
from lvae_torch.models.geometry import padded_size

MNIST_SIDE = 28  # the original pads MNIST to 32x32; only these pixels count
Values = Mapping[str, Any]
Groups = list[list[Any]]  # per scale, fine to coarse, one value per stage


def from_reference(cfg: Path, weights: Values) -> EfficientVDVAE:
    """Build the original's model, in evaluation mode, with its approximations in the likelihood.

    Args:
        cfg: the original's hparams.cfg; only [model], [data] and [loss] are read.
        weights: arrays or tensors under the neutral names.
    Raises:
        CfgError: if the file is not a cfg of the original, or its lists do not fit together.
        DataError: listing every weight that is missing, left over, or of another shape.
    """
    sections: dict[str, dict[str, Any]] = {"model": {}, "data": {}, "loss": {}}
    for (section, key), entry in read_file(cfg).items():
        if section in sections:
            sections[section][key] = evaluate(entry.text)
    image_shape, n_levels = data_from_reference(sections["data"])
    described = section_from_reference(**sections).model_copy(update={"bins": "overlapping"})  # alike at 8 bits
    model = described.make(image_shape, n_levels, reference=True)
    copy_weights(dict(model.named_parameters()), weights)
    return model.eval()


def data_from_reference(data: Values) -> tuple[ImageShape, int]:
    """(C, H, W) and pixel levels of the images that the original's [data] describes."""
    if data["dataset_source"] == "binarized_mnist":
        return (1, MNIST_SIDE, MNIST_SIDE), 2
    return (data["channels"], data["target_res"], data["target_res"]), 2 ** int(data["num_bits"])


def section_from_reference(model: Values, data: Values, loss: Values) -> EfficientVDVAESection:
    """Our ``[model]`` section, in its shortest form, from the values of the original's [model], [data] and [loss].

    Raises:
        CfgError: naming a missing key, or keys that do not fit together.
    """
    try:
        up, down = _up_stages(model), _down_stages(model)
        check_towers(up, down)
        section = {**_towers(up, down), **_options(model), **_output(model, data, loss), **_padding(up, data)}
        return EfficientVDVAESection(**section)
    except KeyError as error:
        raise CfgError(f"the reference's cfg has no key {error}; give [model], [data] and [loss] whole.") from error
    except ValidationError as error:
        told = "\n  ".join(f"{detail['loc'][0] if detail['loc'] else ''} {detail['msg']}" for detail in error.errors())
        raise CfgError(f"the reference's cfg makes no model:\n  {told}") from error


def _up_stages(model: Values) -> list[UpStage]:
    keys = ("up_skip_filters", "up_n_blocks_per_res", "up_strides", "up_filters")
    rows, cells = _rows(model, keys), _cells(model, "up")
    widths = [model["input_conv_filters"], *model["up_filters"][:-1]]
    return [
        UpStage(width, skip, cell, plain + 1, stride)
        for width, cell, (skip, plain, stride, _) in zip(widths, cells, rows, strict=True)
    ]


def _down_stages(model: Values) -> list[DownStage]:
    keys = ("down_filters", "down_latent_variates", "down_n_blocks_per_res", "down_strides")
    rows, cells = _rows(model, keys), _cells(model, "down")
    return [
        DownStage(width, z, cell, more + 1, stride) for cell, (width, z, more, stride) in zip(cells, rows, strict=True)
    ]


def _cells(model: Values, tower: str) -> list[Cells]:
    keys = [f"{tower}_{key}" for key in ("n_blocks", "n_layers", "mid_filters_ratio", "kernel_size")]
    return [Cells(n, layers, float(ratio), kernel) for n, layers, ratio, kernel in _rows(model, keys)]


def _rows(model: Values, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    """One tuple of values per stage.

    Raises:
        CfgError: naming every list of the tower that is not as long as its strides.
    """
    tower = keys[0].partition("_")[0]
    n_stages = len(model[f"{tower}_strides"])
    if wrong := [key for key in keys if len(model[key]) != n_stages]:
        told = ", ".join(f"{key} has {len(model[key])} entries" for key in wrong)
        raise CfgError(f"[model] {tower}_strides has {n_stages} entries, but {told}; give one entry per stage.")
    return list(zip(*(model[key] for key in keys), strict=True))


def _towers(up: Sequence[UpStage], down: Sequence[DownStage]) -> dict[str, Any]:
    """The keys of our section that describe stages."""
    scale, scale_of_stage = 1, []
    for stage in up:
        scale_of_stage.append(scale)
        scale *= stage.stride
    scales = sorted(set(scale_of_stage))

    def grouped(stages: Iterable[Any]) -> Groups:
        pairs = zip(scale_of_stage, stages, strict=True)
        return [[stage for _, stage in group] for _, group in groupby(pairs, key=lambda pair: pair[0])]

    ups, partners = grouped(up), grouped(reversed(down))  # fine to coarse, both in the order of the way up
    section: dict[str, Any] = {
        "scales": tuple(scales),
        "bottom_up": tuple(tuple(stage.n_blocks for stage in stages) for stages in ups),
        "top_down": tuple(tuple(stage.n_blocks for stage in stages[::-1]) for stages in partners[::-1]),
        "z_channels": _shortest([[stage.z_channels for stage in stages[::-1]] for stages in partners]),
    }
    for key, of in (
        ("widths", lambda stage: stage.width),
        ("ratios", lambda stage: stage.cells.ratio),
        ("kernels", lambda stage: stage.cells.kernel),
        ("cells", lambda stage: stage.cells.count),
        ("inner_layers", lambda stage: stage.cells.inner_layers),
    ):
        upward, downward = ([[of(stage) for stage in stages] for stages in tower] for tower in (ups, partners))
        section[key] = _shortest(upward)
        if downward != upward:
            section[f"down_{key}"] = _shortest([values[::-1] for values in downward])
    return section


def _shortest(groups: Groups) -> Any:
    """The shortest equivalent form: one value, one per scale, or per scale one per stage."""
    per_scale = tuple(values[0] if len(set(values)) == 1 else tuple(values) for values in groups)
    return per_scale[0] if len(set(per_scale)) == 1 and not isinstance(per_scale[0], tuple) else per_scale


def _options(model: Values) -> dict[str, Any]:
    return {
        "pointwise_ends": model["use_1x1_conv"],
        "stem_kernel": _kernel(model["input_kernel_size"]),
        "head_kernel": _kernel(model["output_kernel_size"]),
        "latent_scale": model["distribution_base"],
        "latent_beta": float(model["gradient_smoothing_beta"]),
        "residual_posterior": model["use_residual_distribution"],
        "stable_init": model["stable_init"],
        "zero_prior_init": model["initialize_prior_weights_as_zero"],
    }


def _output(model: Values, data: Values, loss: Values) -> dict[str, Any]:
    beta, is_logstd = float(model["output_gradient_smoothing_beta"]), model["output_distribution_base"] == "logstd"
    if data["dataset_source"] == "binarized_mnist":
        return {"likelihood": "bernoulli"}
    return {
        "likelihood": "discretized_logistic_mixture",
        "n_mixtures": model["num_output_mixtures"],
        "output_scale": model["output_distribution_base"],
        "output_beta": beta,
        # Our floor applies to the log scale; theirs, with logstd, to the network's output.
        "min_log_scale": float(loss["min_mol_logscale"]) * (beta if is_logstd else 1.0),
    }


def _padding(up: Sequence[UpStage], data: Values) -> dict[str, Any]:
    coarsest, side = 1, data["target_res"]
    for stage in up:
        coarsest *= stage.stride
    if side % coarsest:
        raise CfgError(
            f"[model] up_strides shrink images by {coarsest}, which does not divide [data] target_res = {side}."
        )
    (_, height, width), _ = data_from_reference(data)
    is_least = padded_size((height, width), coarsest) == (side, side)
    return {"padding": None if is_least else (side - height) // 2}


def _kernel(size: Any) -> Any:
    rows, columns = (size, size) if isinstance(size, int) else size
    return rows if rows == columns else (rows, columns)


INSIDE_A_BLOCK = {
    "prior_layer.projection": "prior_proj", "posterior_layer.projection": "post_proj", "z_projection": "z_proj",
    "skip_projection": "skip_proj", "pool.ops.0": "pool.conv", "unpool.ops.0": "unpool.conv",
    "unpool.scale_bias": "unpool.bias_map", "prior_net.0.": "prior_net.", "posterior_net.0.": "post_net.",
    "residual_block.": "cell.",
}  # fmt: skip


def neutral_names(names: Iterable[str], up_n_blocks_per_res: Sequence[int]) -> dict[str, str]:
    """Map the names in the original's state dict to neutral ones.

    Raises:
        DataError: listing the names that the original does not have.
    """
    found = {name: _neutral(name, up_n_blocks_per_res) for name in names}
    if unknown := [name for name, neutral in found.items() if neutral is None]:
        raise DataError(f"no weights of an original Efficient-VDVAE: {', '.join(unknown)}.")
    return {name: neutral for name, neutral in found.items() if neutral is not None}


def _neutral(name: str, up_n_blocks_per_res: Sequence[int]) -> str | None:
    if name == "top_down.trainable_h":
        return "top_h"
    if match := re.fullmatch(r"(?:bottom_up|top_down)\.((?:input|output)_conv\.(?:weight|bias))", name):
        return match.group(1)
    match = re.fullmatch(r"(?:bottom_up|top_down)\.levels_(up|down)(_downsample|_upsample)?\.(\d+)\.(.+)", name)
    if match is None:
        return None
    tower, linking, stage, rest = match.groups()
    if linking:
        block = up_n_blocks_per_res[int(stage)] if tower == "up" else 0
    else:
        number, _, rest = rest.partition(".")
        block = int(number) + (tower == "down")
    return f"{tower}.{stage}.{block}.{_neutral_inside(rest)}"


def _neutral_inside(rest: str) -> str:
    """Name inside a block. The original lists SiLUs and convolutions together, so ours have half its numbers."""
    for theirs, ours in INSIDE_A_BLOCK.items():
        if rest.startswith(theirs):
            rest = ours + rest.removeprefix(theirs)
            break
    return re.sub(r"convs\.(\d+)", lambda match: f"conv.{int(match.group(1)) // 2}", rest)
