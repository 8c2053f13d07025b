"""Files of other programs in their own form, made of models of ours; names are written here from their side."""

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch
from torch import Tensor, nn

from lvae_torch.import_run import command
from lvae_torch.interop.vdvae import section_from_reference

VDVAE = {
    "dataset": "cifar10", "enc_blocks": "32d8,4x1,4d4,1x1", "dec_blocks": "1x1,4m1,4x1,32m4", "width": 4,
    "custom_width_str": "4:6,1:6", "bottleneck_multiple": 0.5, "zdim": 2, "no_bias_above": 4, "num_mixtures": 2,
    "ema_rate": 0.99, "grad_clip": 200.0, "skip_threshold": 400.0, "lr": 0.01, "wd": 0.01, "warmup_iters": 2.0,
    "adam_beta1": 0.9, "adam_beta2": 0.9, "num_epochs": 3, "n_batch": 4, "iters_per_save": 1000, "epochs_per_eval": 1,
    "seed": 3, "hparam_sets": "cifar10",
}  # fmt: skip
"""Hyper-parameters of a tiny run of openai/vdvae."""
PLACES = [
    (r"input_conv", r"encoder.in_conv"), (r"output_conv", r"decoder.out_net.out_conv"),
    (r"bottom_up\.(\d+)\.block", r"encoder.enc_blocks.\1"), (r"bias_maps", r"decoder.bias_xs"),
    (r"top_down\.(\d+)\.posterior", r"decoder.dec_blocks.\1.enc"), (r"top_down\.(\d+)", r"decoder.dec_blocks.\1"),
    (r"(gain|bias)$", r"decoder.\1"),
]  # fmt: skip


def vdvae_model(seed: int, hparams: Mapping[str, Any] = VDVAE) -> Any:
    torch.manual_seed(seed)
    model = section_from_reference(hparams).build((3, 32, 32), 256)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def vdvae_state(model: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Its state dict, as openai/vdvae names and orders it: the encoder first."""
    named = {}
    for name, parameter in model.named_parameters():
        pattern, theirs = next((p, t) for p, t in PLACES if re.match(p, name))
        named[prefix + re.sub(rf"^{pattern}", theirs, name)] = parameter.detach().clone()
    return dict(sorted(named.items(), key=lambda item: ".decoder." in f".{item[0]}"))


def vdvae_optimizer(state: Mapping[str, Tensor], step: int) -> dict[str, Any]:
    """As apex's FusedAdam has it: by position, and one step for all."""
    moments = {i: {"exp_avg": 0.1 * w, "exp_avg_sq": w**2} for i, w in enumerate(state.values())}
    group = {"lr": 0.01, "betas": (0.9, 0.9), "eps": 1e-8, "step": step, "params": list(range(len(moments)))}
    return {"state": moments, "param_groups": [group]}


def write_vdvae(folder: Path, prefix: str = "iter-140", step: int = 140) -> tuple[Any, Any]:
    """All four files of a checkpoint; returns its raw and its averaged model."""
    folder.mkdir(parents=True, exist_ok=True)
    raw, averaged = vdvae_model(0), vdvae_model(1)
    theirs = vdvae_state(raw, "module.")
    torch.save(theirs, folder / f"{prefix}-model.th")
    torch.save(vdvae_state(averaged), folder / f"{prefix}-model-ema.th")
    torch.save(vdvae_optimizer(theirs, max(0, step - 2)), folder / f"{prefix}-opt.th")
    write_vdvae_log(folder / f"{prefix}-log.jsonl", step - 12)
    return raw, averaged


def write_vdvae_log(path: Path, step: int) -> None:
    import json

    lines = [{"type": "hparam", "key": key, "value": value} for key, value in VDVAE.items()]
    lines += [{"message": "training"}, {"type": "train_loss", "step": step, "epoch": 2}]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n{ half a line")


def import_it(folder: Path, what: Path | str, name: str = "taken", *options: str) -> Path:
    """``lvae import`` with runs and dumps in ``folder``; returns the new run's folder."""
    places = [f"--set=run.runs={folder / 'runs'}", f"--set=data.dumps={folder / 'dumps'}", "--set=run.device=cpu"]
    command([str(what), "--name", name, *places, *options])
    return folder / "runs" / name


def checkpoint_in(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(max((run / "checkpoints").glob("*.pt")), weights_only=True)
    return state


# The JAX half of Efficient-VDVAE


def flax_array(array: np.ndarray, kind: int = 1) -> msgpack.ExtType:
    """As flax writes an array: an extension whose payload is msgpack again."""
    return msgpack.ExtType(kind, msgpack.packb([list(array.shape), array.dtype.name, array.tobytes()]))


def flax_tree(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """``a/b/c`` -> array as nested maps."""
    tree: dict[str, Any] = {}
    for path, array in values.items():
        *places, leaf = path.split("/")
        node = tree
        for place in places:
            node = node.setdefault(place, {})
        node[leaf] = flax_array(array)
    return tree


JAX_PLACES = [
    (r"cell\.(\d+)\.conv\.(\d+)", r"residual_block_\1/conv_\2/conv"),
    (r"prior_net\.conv\.(\d+)", r"prior_net/conv_\1/conv"),
    (r"post_net\.conv\.(\d+)", r"posterior_net/conv_\1/conv"), (r"prior_proj", r"prior_gaussian_layer/projection/conv"),
    (r"post_proj", r"posterior_gaussian_layer/projection/conv"), (r"z_proj", r"z_projection/z_projection/conv"),
    (r"skip_proj", r"skip_projection/conv"), (r"pool\.conv", r"pooling_layer/conv/conv"),
    (r"unpool\.conv", r"unpooling_layer/conv/conv"), (r"unpool\.bias_map", r"unpooling_layer/scale_bias"),
]  # fmt: skip


def jax_name(name: str, up_n_blocks_per_res: list[int]) -> str:
    """The path of a parameter of ours in the JAX half's tree."""
    if name == "top_h":
        return "top_down/trainable_h"
    kind, _, rest = name.partition(".")
    if kind in ("input_conv", "output_conv"):
        tower = "bottom_up" if kind == "input_conv" else "top_down"
        return f"{tower}/{kind}/conv/{_jax_leaf(rest)}"
    stage, block, inside = rest.split(".", 2)
    if kind == "up":
        is_last = int(block) == up_n_blocks_per_res[int(stage)]
        place = f"bottom_up/block_up_level_{stage}_{'downsample' if is_last else block}"
    else:
        place = f"top_down/block_down_level_{stage}_{int(block) - 1 if int(block) else 'upsample'}"
    pattern, theirs = next((p, t) for p, t in JAX_PLACES if re.match(p, inside))
    module = re.match(pattern, inside)
    assert module is not None
    leaf = inside[module.end() :].removeprefix(".")
    return f"{place}/{re.sub(pattern, theirs, module[0])}{'/' + _jax_leaf(leaf) if leaf else ''}"


def _jax_leaf(leaf: str) -> str:
    return {"weight": "kernel", "bias": "bias"}[leaf]


def jax_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 4:
        return shape
    if name.endswith(("top_h", "bias_map")):
        return (1, shape[2], shape[3], shape[1])
    return (shape[2], shape[3], shape[1], shape[0])


def huge_extension(length: int) -> bytes:
    """A map whose one array promises ``length`` bytes and has none."""
    return b"\x81\xa6params\x81\xa1a" + b"\xc9" + struct.pack(">I", length) + b"\x01"
