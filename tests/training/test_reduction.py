"""The mean of gradients over ranks, beside PyTorch's own DDP."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import small
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from lvae_torch.training import reduction
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.reduction import GradientReduction

RANKS = 2


def loss_of(model: nn.Module, rank: int, part: int = 0) -> torch.Tensor:
    torch.manual_seed(10 * rank + part)
    x = small.images(3, (1, 8, 8), 2)
    return (model(x.flatten(1)) ** 2).mean()


def layers() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 7))


def on_one_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=RANKS)
    results = [gradient for slice_bytes in (1, 2000, 2**20) for gradient in on_one_rank_in(slice_bytes, rank)]
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


def on_one_rank_in(slice_bytes: int, rank: int) -> Iterator[torch.Tensor]:
    ours, theirs = layers(), layers()
    flat = FlatParameters(ours)
    means = GradientReduction(flat, RANKS, slice_bytes)
    reference = DistributedDataParallel(theirs)
    for _ in range(2):  # a second step begins as the first
        flat.gradient.zero_()
        reference.zero_grad()
        loss_of(ours, rank, 0).backward()
        with means.reducing():
            loss_of(ours, rank, 1).backward()
        with reference.no_sync():
            loss_of(reference, rank, 0).backward()
        loss_of(reference, rank, 1).backward()
        for own, its in zip(flat.pieces(flat.gradient), theirs.parameters(), strict=True):
            assert its.grad is not None
            assert torch.equal(own, its.grad)
        yield flat.gradient.clone()


def test_gradients_are_those_of_ddp_and_of_one_process(tmp_path: Path) -> None:
    spawn(on_one_rank, (tmp_path,), nprocs=RANKS)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    alone = layers()
    flat = FlatParameters(alone)
    for rank in range(RANKS):
        for part in range(2):
            (loss_of(alone, rank, part) / RANKS).backward()
    for gradient in one:
        assert_close(gradient, flat.gradient)


class Sent:
    """Stands for the network: notes which pieces travel, and when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.waited = 0
        monkeypatch.setattr(reduction, "_start_mean", self.start)

    def start(self, piece: torch.Tensor, world: int) -> "Sent":
        self.sizes.append(piece.numel())
        return self

    def wait(self) -> None:
        self.waited += 1


def test_slices_travel_while_the_backward_pass_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, model = Sent(monkeypatch), layers()
    flat = FlatParameters(model)
    means = GradientReduction(flat, RANKS, slice_bytes=4 * 600)
    seen: list[int] = []
    model[0].weight.register_hook(lambda gradient: seen.append(len(sent.sizes)))  # the last to be reached
    with means.reducing():
        loss_of(model, 0).backward()
        before_waiting = sent.waited
    assert sum(sent.sizes) == flat.vector.numel() and min(sent.sizes[:-1]) >= 600
    assert seen == [1] and before_waiting == 0 and sent.waited == len(sent.sizes)


def test_a_parameter_that_took_no_part_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, model = Sent(monkeypatch), layers()
    flat = FlatParameters(nn.ModuleList([model, deepcopy(model)]))
    means = GradientReduction(flat, RANKS, slice_bytes=400)
    for _ in range(2):
        sent.sizes.clear()
        with means.reducing():
            loss_of(model, 0).backward()
        assert sum(sent.sizes) == flat.vector.numel()
    sent.sizes.clear()
    loss_of(model, 0).backward()
    assert not sent.sizes, "only where it is asked for"


def test_a_pass_that_fails_sends_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, model = Sent(monkeypatch), layers()
    means = GradientReduction(FlatParameters(model), RANKS)
    with pytest.raises(ZeroDivisionError), means.reducing():
        raise ZeroDivisionError
    loss_of(model, 0).backward()
    assert not sent.sizes
