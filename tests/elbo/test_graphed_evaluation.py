"""An evaluation and a likelihood that are replayed have the numbers of those that are not."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import small
import torch

from lvae_torch.data.labelled import Labelled
from lvae_torch.distributed.graph import WARM_UP, Graphed, Inputs, Outputs
from lvae_torch.distributed.processes import Processes
from lvae_torch.elbo.bounds import iw_bound, weighted_pass
from lvae_torch.elbo.evaluation import evaluate
from lvae_torch.models.sources import posterior_sample

ALONE = Processes(0, 1, torch.device("cpu"))
N_REPLAYED: list[str] = []


class Replay:
    """Stands for a CUDA graph on a CPU: works again on what the graph keeps, and overwrites what it wrote before."""

    def __init__(self, graphed: Graphed[Any], own: Inputs, key: Any) -> None:
        self.work = lambda: graphed._work(own, key)
        with torch.random.fork_rng():  # a capture computes nothing
            self.written = self.work()

    def replay(self) -> None:
        N_REPLAYED.append("")
        for name, tensor in self.work().items():
            self.written[name].copy_(tensor)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is replayed, without a card."""

    def capture(graphed: Graphed[Any], inputs: Inputs, key: Any) -> tuple[Replay, Inputs, Outputs]:
        own = tuple(None if tensor is None else tensor.clone() for tensor in inputs)
        graph = Replay(graphed, own, key)
        return graph, own, graph.written

    N_REPLAYED.clear()
    monkeypatch.setattr(Graphed, "_capture", capture)
    return N_REPLAYED


@pytest.mark.parametrize(
    "make",
    [small.model, small.very_deep, small.vqvae, small.residual, lambda: small.dense("ladder")],
    ids=["spatial LVAE", "Efficient-VDVAE", "VQ-VAE", "residual", "ladder"],
)
def test_an_evaluation_that_is_replayed_is_the_same(replays: list[str], make: Callable[[], Any]) -> None:
    model = make().eval()
    sizes = [4] * (WARM_UP + 3) + [3]
    batches = [(j, Labelled(small.images(n, model.image_shape, 2))) for j, n in enumerate(sizes)]
    plain, replayed = (
        evaluate(model, batches, ALONE, seed=3, iw_samples=5, chunk=8, as_published=True, is_graphed=is_graphed)
        for is_graphed in (False, True)
    )
    # Of 6 whole batches the ELBO's pass is replayed for 3; each has 2 whole passes of the bound, of which 3 come first.
    assert len(replays) == 3 + (2 * 6 - 3)
    assert asdict(plain).keys() == asdict(replayed).keys()
    assert plain.scalars(64) == replayed.scalars(64)
    for one, other in zip(
        plain.units.kl + plain.units.variance, replayed.units.kl + replayed.units.variance, strict=True
    ):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_the_bound_of_classes_is_the_same_where_it_is_replayed(replays: list[str]) -> None:
    model = small.model(class_embedding="top", n_classes=3).eval()
    x, labels = small.images(4, model.image_shape, 2), torch.tensor([0, 1, 2, 0])
    bounds = []
    for weighted in (None, weighted_pass(model, is_graphed=True)):
        torch.manual_seed(5)
        with torch.no_grad():
            bounds.append(iw_bound(model, x, 23, 8, posterior_sample, labels=labels, weighted=weighted))
    assert len(replays) == 11 - WARM_UP, "11 passes of 2 samples, and one of the last"
    np.testing.assert_array_equal(bounds[0].numpy(), bounds[1].numpy())
