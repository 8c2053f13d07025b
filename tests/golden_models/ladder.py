"""Fully-connected ladders under the neutral weight names of the reference numbers, as models of ours.

Rungs are counted from 1, next to the data. ``<map>_W`` (out, in) and ``<map>_b`` are the weights of the maps
``up<i>_1``, ``up<i>_2``, ``up<i>_mu``, ``up<i>_var`` (into rung i), ``down<i>_1`` to ``down<i>_var`` (from rung i + 1
to the prior of rung i), and ``out_1``, ``out_2``, ``out_logit`` (from rung 1 to x). No batch norm.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from lvae_torch.interop.weights import copy_weights
from lvae_torch.models.ladder.ladder_vae import LadderVAE
from lvae_torch.models.ladder.section import LadderSection


def from_reference(config: Mapping[str, Any], weights: Mapping[str, Any]) -> LadderVAE:
    """A ladder over binary images, in evaluation mode.

    Args:
        config: image_shape (C, H, W), z_dims and widths (bottom to top), leaky_slope.
        weights: arrays or tensors under the names above.
    Raises:
        DataError: listing every weight that is missing, left over, or of another shape.
    """
    section = LadderSection(
        z_dims=config["z_dims"], widths=config["widths"], leak=float(config["leaky_slope"]), batch_norm=False
    )
    model = section.build(config["image_shape"], n_levels=2)
    copy_weights(dict(reference_tensors(model)), weights)
    return model.eval()


def reference_tensors(model: LadderVAE) -> Iterator[tuple[str, Tensor]]:
    """Every parameter of ``model`` (views of heads that are joined in it) under its neutral name."""
    for i, (mlp, head) in enumerate(zip(model.up, model.up_heads, strict=True), start=1):
        yield from _mlp(f"up{i}", mlp)
        yield from _gaussian_head(f"up{i}", head)
    yield from generative_tensors(model.generative)


def generative_tensors(generative: Any) -> Iterator[tuple[str, Tensor]]:
    """The same for the half that models with another inference share."""
    for i, (mlp, head) in enumerate(reversed(generative.priors), start=1):
        yield from _mlp(f"down{i}", mlp)
        yield from _gaussian_head(f"down{i}", head)
    yield from _mlp("out", generative.mlp)
    yield from _linear("out_logit", generative.head)


def _mlp(prefix: str, mlp: nn.Module) -> Iterator[tuple[str, Tensor]]:
    layers = [module for module in mlp.modules() if isinstance(module, nn.Linear)]
    for k, layer in enumerate(layers, start=1):
        yield from _linear(f"{prefix}_{k}", layer)


def _gaussian_head(prefix: str, head: Any) -> Iterator[tuple[str, Tensor]]:
    (layer,) = head
    for name, weight, bias in zip(("mu", "var"), layer.weight.chunk(2), layer.bias.chunk(2), strict=True):
        yield f"{prefix}_{name}_W", weight
        yield f"{prefix}_{name}_b", bias


def _linear(prefix: str, layer: nn.Linear) -> Iterator[tuple[str, Tensor]]:
    yield f"{prefix}_W", layer.weight
    yield f"{prefix}_b", layer.bias
