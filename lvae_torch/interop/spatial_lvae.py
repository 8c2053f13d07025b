"""Converts spatial LVAE models of the original implementation (addtt/ladder-vae-pytorch) to ours.

Weights are passed as plain arrays under neutral names, with layers numbered bottom to top:
``first.conv``, ``first.block.*``, ``bu.<i>.<j>.*``, ``stoch.<i>.{p,q,out}``, ``merge.<i>.*``, ``skip.<i>.*``,
``td.<i>.<j>.*``, ``final.<j>.*``, ``lik.conv``, ``top_prior``; inside a block ``norm1 conv1 norm2 conv2 gate``,
and ``resample`` for the halving or doubling convolution in front of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from lvae_torch.interop.weights import copy_weights
from lvae_torch.models.likelihoods.heads import Options, likelihood_head
from lvae_torch.models.spatial_lvae.model import Ladder, SpatialLVAE, Stage
from lvae_torch.models.spatial_lvae.residual import BlockStyle, Merge, ResidualBlock

LIKELIHOODS = {
    "bernoulli": "bernoulli",
    "gaussian": "gaussian",
    "discr_log": "discretized_logistic",
    "discr_log_mix": "discretized_logistic_mixture",
}


def from_reference(config: Mapping[str, Any], weights: Mapping[str, Any]) -> SpatialLVAE:
    """Build the original's model, in evaluation mode, with its approximations in the likelihoods.

    Args:
        config: color_ch, img_shape, z_dims, downsample, blocks_per_layer, n_filters, nonlin, merge_type, batchnorm,
            skip, gated, learn_top_prior, residual_type, likelihood, no_initial_downscaling; lists run bottom to top.
            ``dropout`` is 0 if absent; keys about training are ignored.
        weights: arrays or tensors under the names above.
    Raises:
        DataError: listing every weight that is missing, left over, or of another shape.
    """
    model = _build(config)
    copy_weights(dict(reference_tensors(model)), weights)
    return model.eval()


def _build(config: Mapping[str, Any]) -> SpatialLVAE:
    style = BlockStyle(
        channels=config["n_filters"],
        nonlinearity=config["nonlin"],
        residual_type=config["residual_type"],
        use_batch_norm=config["batchnorm"],
        dropout=config.get("dropout") or 0.0,
    )
    ladder = Ladder(
        style,
        blocks_per_layer=config["blocks_per_layer"],
        gated=config["gated"],
        use_skip=config["skip"],
        linear_merge=config["merge_type"] == "linear",
        learn_top_prior=config["learn_top_prior"],
        initial_halving=not config["no_initial_downscaling"],
    )
    name = LIKELIHOODS[config["likelihood"]]
    head = likelihood_head(name, config["color_ch"], 2 if name == "bernoulli" else 256, Options(reference=True))
    stages = tuple(Stage(z, d) for z, d in zip(config["z_dims"], config["downsample"], strict=True))
    return SpatialLVAE((config["color_ch"], *config["img_shape"]), stages, ladder, head)


def reference_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and running statistic of ``model`` under its neutral name."""
    yield "top_prior", model.rungs[0].top_prior
    for prefix, module in _leaves(model):
        for name, tensor in module.state_dict(keep_vars=True).items():
            if name != "num_batches_tracked":
                yield f"{prefix}.{name}", tensor


def _leaves(model: Any) -> Iterator[tuple[str, nn.Module]]:
    yield "first.conv", model.stem[0]
    yield from block_leaves("first.block", model.stem[2])
    top = len(model.rungs) - 1
    for i in range(len(model.rungs)):
        rung = model.rungs[top - i]
        yield from tower_leaves(f"bu.{i}", model.bottom_up[i])
        yield f"stoch.{i}.q", rung.posterior
        yield f"stoch.{i}.out", rung.z_proj
        if i < top:
            yield f"stoch.{i}.p", rung.prior
            yield from merge_leaves(f"merge.{i}", rung.merge)
        if rung.skip is not None:
            yield from merge_leaves(f"skip.{i}", rung.skip)
        yield from tower_leaves(f"td.{i}", rung.blocks)
    yield from tower_leaves("final", model.final)
    yield "lik.conv", model.head


def tower_leaves(prefix: str, tower: nn.Sequential) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a tower of blocks under their neutral names."""
    j = 0
    for module in tower:
        if isinstance(module, ResidualBlock):
            yield from block_leaves(f"{prefix}.{j}", module)
            j += 1
        else:
            yield f"{prefix}.{j}.resample", module


def merge_leaves(prefix: str, merge: Merge) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a merge under their neutral names."""
    yield f"{prefix}.conv", merge.conv
    if merge.block is not None:
        yield from block_leaves(prefix, merge.block)


def block_leaves(prefix: str, block: ResidualBlock) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a residual block under their neutral names."""
    for name, kind in (("norm", nn.BatchNorm2d), ("conv", nn.Conv2d)):
        for k, module in enumerate((m for m in block.branch if isinstance(m, kind)), start=1):
            yield f"{prefix}.{name}{k}", module
    if block.gate is not None:
        yield f"{prefix}.gate", block.gate.conv
