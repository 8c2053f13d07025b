"""The mean of gradients over ranks, beside PyTorch's own DDP."""

import gc
import weakref
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import small
import steps
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from lvae_torch.training import reduction
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.half_weights import HalfWeights
from lvae_torch.training.reduction import GradientSlices

RANKS = 2


def loss_of(model: nn.Module, rank: int, part: int = 0) -> torch.Tensor:
    torch.manual_seed(10 * rank + part)
    x = small.images(3, (1, 8, 8), 2)
    return (model(x.flatten(1)) ** 2).mean()


def layers() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 7))


def half_gradients(rank: int, slice_bytes: int) -> torch.Tensor:
    """The mean gradient of a model with batch norm in bfloat16, whose weights are converted slice by slice, or each."""
    model = small.model((3, 8, 8), batch_norm=True).to(memory_format=torch.channels_last).train()
    step = steps.train_step(model, autocast=torch.autocast("cpu", torch.bfloat16), accumulate=2)
    step.half = HalfWeights(model, step.flat) if slice_bytes else None
    copies = step.half.copies if step.half else None
    step.slices = GradientSlices(step.flat, RANKS, slice_bytes=slice_bytes or 500, copies=copies)
    for k in range(2):
        torch.manual_seed(10 * rank + k)
        step(small.images(4, (3, 8, 8)), k)
    return torch.cat([step.flat.gradient, step.flat.vector.data])


def on_one_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=RANKS)
    ways = [(slice_bytes, collecting) for slice_bytes in (1, 2000, 2**20) for collecting in (False, True)]
    results = [gradient for way in ways for gradient in on_one_rank_in(*way, rank)]
    torch.save(results, folder / f"{rank}.pt")
    torch.save([half_gradients(rank, slice_bytes) for slice_bytes in (0, 1, 500, 2**20)], folder / f"{rank}_half.pt")
    dist.destroy_process_group()


def on_one_rank_in(slice_bytes: int, collecting: bool, rank: int) -> Iterator[torch.Tensor]:
    ours, theirs = layers(), layers()
    flat = FlatParameters(ours)
    means = GradientSlices(flat, RANKS, collecting, slice_bytes)
    reference = DistributedDataParallel(theirs)
    for _ in range(2):  # a second step begins as the first
        flat.gradient.zero_()
        reference.zero_grad()
        for part in range(2):
            with means.passing(is_last=part == 1):
                loss_of(ours, rank, part).backward()
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
    halves = [torch.load(tmp_path / f"{rank}_half.pt", weights_only=True) for rank in range(RANKS)]
    assert all(torch.equal(a, halves[0][0]) for of_rank in halves for a in of_rank), "whatever the slices"


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
    means = GradientSlices(flat, RANKS, slice_bytes=4 * 600)
    seen: list[int] = []
    model[0].weight.register_hook(lambda gradient: seen.append(len(sent.sizes)))  # the last to be reached
    with means.passing():
        loss_of(model, 0).backward()
        before_waiting = sent.waited
    assert sum(sent.sizes) == flat.vector.numel() and min(sent.sizes[:-1]) >= 600
    assert seen == [1] and before_waiting == 0 and sent.waited == len(sent.sizes)


def test_a_parameter_that_took_no_part_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, model = Sent(monkeypatch), layers()
    flat = FlatParameters(nn.ModuleList([model, deepcopy(model)]))
    means = GradientSlices(flat, RANKS, slice_bytes=400)
    for _ in range(2):
        sent.sizes.clear()
        with means.passing():
            loss_of(model, 0).backward()
        assert sum(sent.sizes) == flat.vector.numel()
    sent.sizes.clear()
    loss_of(model, 0).backward()
    assert not sent.sizes, "only where it is asked for"


def test_half_weights_travel_while_the_backward_pass_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, model = Sent(monkeypatch), small.model((3, 8, 8), batch_norm=True).train()
    step = steps.train_step(model, autocast=torch.autocast("cpu", torch.bfloat16))
    step.half = HalfWeights(model, step.flat)
    step.slices = GradientSlices(step.flat, RANKS, slice_bytes=500, copies=step.half.copies)
    seen: list[int] = []
    first = step.half.copies[id(model.stem[0].weight)]  # the last to be reached
    first.register_hook(lambda gradient: seen.append(len(sent.sizes)))
    step(small.images(4, (3, 8, 8)), 0)
    assert sum(sent.sizes) == step.flat.vector.numel()
    assert len(step.slices.slices) > 3 and seen == [len(step.slices.slices) - 1], "all others are under way"


def test_a_pass_that_fails_sends_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, model = Sent(monkeypatch), layers()
    means = GradientSlices(FlatParameters(model), RANKS)
    with pytest.raises(ZeroDivisionError), means.passing():
        raise ZeroDivisionError
    loss_of(model, 0).backward()
    assert not sent.sizes


def test_a_pass_that_fails_leaves_no_gradient_to_the_next() -> None:
    """The capture of a CUDA graph may fail half way; the same step is then done kernel by kernel."""
    model = layers()
    flat = FlatParameters(model)
    slices = GradientSlices(flat, collecting=True)
    with slices.passing():
        loss_of(model, 0).backward()
    right = flat.gradient.clone()

    def fail(gradient: torch.Tensor) -> None:
        raise ZeroDivisionError

    hook = model[2].weight.register_hook(fail)
    with pytest.raises(ZeroDivisionError), slices.passing():
        loss_of(model, 0).backward()
    assert model[4].weight.grad is None
    hook.remove()
    flat.gradient.zero_()
    with slices.passing():
        loss_of(model, 0).backward()
    assert torch.equal(flat.gradient, right)


@pytest.mark.parametrize("slice_bytes", [1, 3000, 2**20])
@pytest.mark.parametrize("make", [small.model, small.very_deep, small.residual, small.vqvae, small.pixelcnn])
def test_collected_gradients_are_the_same_bits(make: Callable[[], Any], slice_bytes: int) -> None:
    results = []
    for collecting in (False, True):
        model = make().to(memory_format=torch.channels_last).train()
        step = steps.train_step(model, accumulate=2)
        if collecting:
            step.slices = GradientSlices(step.flat, collecting=True, slice_bytes=slice_bytes)
        for k in range(2):
            torch.manual_seed(k)
            step(small.images(4, model.image_shape, 2), k)
        assert collecting == all(p.grad is None for p in model.parameters())
        results.append([step.flat.gradient.clone(), *steps.state_of(step)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_half_weights_come_to_the_same_gradient() -> None:
    """Some gradients come on the parameters, others on their copies in half precision."""
    gradients = []
    for collecting in (False, True):
        model = small.model((3, 8, 8), batch_norm=True).to(memory_format=torch.channels_last).train()
        step = steps.train_step(model, autocast=torch.autocast("cpu", torch.bfloat16))
        step.half = HalfWeights(model, step.flat)
        copies = step.half.copies
        step.slices = GradientSlices(step.flat, collecting=collecting, slice_bytes=500, copies=copies)
        torch.manual_seed(0)
        step(small.images(4, (3, 8, 8)), 0)
        gradients.append(step.flat.gradient.clone())
    assert torch.equal(*gradients)


def test_a_model_is_freed_with_its_slices() -> None:
    """Autograd holds the hooks of parameters where the garbage collector does not look."""
    model = layers()
    slices = GradientSlices(FlatParameters(model), collecting=True)
    with slices.passing():
        loss_of(model, 0).backward()
    weight = weakref.ref(model[0].weight)
    del model, slices
    gc.collect()
    assert weight() is None
