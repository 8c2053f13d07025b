"""Autoregressive-flow priors under the neutral weight names of the reference numbers, as priors of ours.

``W1``, ``b1``, ``W2``, ``b2`` and so on are the hidden layers, ``W_mu``, ``b_mu``, ``W_scale``, ``b_scale`` the heads
of shifts and log scales; weights are (out, in).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from lvae_torch.interop.weights import copy_weights
from lvae_torch.models.vae.flow_prior import FlowPrior
from lvae_torch.models.vae.made import MaskedLinear


def from_reference(
    z_dim: int, degrees: Sequence[Sequence[int]], weights: Mapping[str, Any], bounded: bool
) -> FlowPrior:
    """A prior over ``z_dim`` units whose hidden ones have these ``degrees``, in evaluation mode.

    Raises:
        DataError: listing every weight that is missing, left over, or of another shape.
    """
    prior = FlowPrior(z_dim, [len(layer) for layer in degrees], bounded, degrees)
    copy_weights(dict(reference_tensors(prior)), weights)
    return prior.eval()


def reference_tensors(prior: FlowPrior) -> Iterator[tuple[str, Tensor]]:
    """Every parameter of ``prior`` (views of the two heads, which are one layer in it) under its neutral name."""
    *hidden, heads = [layer for layer in prior.made if isinstance(layer, MaskedLinear)]
    for k, layer in enumerate(hidden, start=1):
        yield f"W{k}", layer.weight
        yield f"b{k}", layer.bias
    for name, weight, bias in zip(("mu", "scale"), heads.weight.chunk(2), heads.bias.chunk(2), strict=True):
        yield f"W_{name}", weight
        yield f"b_{name}", bias
