"""Batch norm over two ranks against one process with all their images, in float64."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.testing import assert_close

from lvae_torch.distributed.batch_norm import SharedBatchNorm, share_statistics
from lvae_torch.elbo.batch_norm import estimate

SHARES = (3, 5)
"""Images of each rank."""
MODELS: dict[str, Callable[[], nn.Module]] = {
    "maps": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=0.3), nn.ELU(), nn.BatchNorm2d(4)),
    "rows": lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, momentum=0.05), nn.Tanh(), nn.Linear(5, 2)),
    "half": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3)),
}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name]().train()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model if name == "half" else model.double()


def images(name: str) -> Tensor:
    """Of all ranks; far from zero, where sums of squares lose what tells them apart."""
    torch.manual_seed(1)
    x = torch.randn(sum(SHARES), *((6,) if name == "rows" else (3, 5, 4)), dtype=torch.float64) + 100
    return x.bfloat16() if name == "half" else x.to(memory_format=torch.channels_last) if name == "maps" else x


def trained(model: nn.Module, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Two passes; output, gradients, of a sum over images that differ in weight, and statistics."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        for _ in range(2):
            y = model(x)
            (y.double().flatten(1).sin().sum(dim=1) * weights).sum().backward()
    assert x.grad is not None
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return {"y": y.detach(), "x": x.grad, **gradients, **buffers}


def on_one_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=len(SHARES))
    results = {}
    for name in MODELS:
        model, mine = made(name), slice(*((0, SHARES[0]) if rank == 0 else (SHARES[0], None)))
        share_statistics(model)
        results[name] = trained(model, images(name)[mine], weights()[mine])
    # A rank with more batches than the other waits for nobody, and both come to the same statistics.
    model.eval()
    estimate(model, (partial(model, x) for x in batches()[rank::2]), summed)
    results["estimated"] = moments(model)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


def moments(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}


def weights() -> Tensor:
    return torch.linspace(0.5, 2, sum(SHARES), dtype=torch.float64)


def batches() -> list[Tensor]:
    return list(torch.randn(3, 8, 3, 5, 4, generator=torch.Generator().manual_seed(2)))


def summed(tensor: Tensor) -> Tensor:
    dist.all_reduce(tensor)
    return tensor


def test_two_ranks_normalise_as_one_process(tmp_path: Path) -> None:
    spawn(on_one_rank, (tmp_path,), nprocs=len(SHARES))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(len(SHARES))]
    for name in MODELS:
        model = made(name)
        alone, ours = trained(model, images(name), weights()), [rank[name] for rank in ranks]
        exactly = {"rtol": 1e-9, "atol": 1e-9} if name != "half" else {"rtol": 0.03, "atol": 0.03}
        for key, value in alone.items():
            if key in ("x", "y"):
                found = torch.cat([own[key] for own in ours])
            elif key in dict(model.named_parameters()):
                found = ours[0][key] + ours[1][key]
            else:
                found = ours[0][key]
                assert torch.equal(found, ours[1][key]), "ranks keep the same statistics"
            assert_close(found, value, **exactly, msg=lambda m, key=key, name=name: f"{name} {key}: {m}")
    model = made("half").eval()
    estimate(model, (partial(model, x) for x in batches()))
    for rank in ranks:
        assert_close(rank["estimated"], moments(model))


def test_a_copy_of_a_norm_normalises_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[nn.Module] = []

    def noted(norm: nn.Module, x: Tensor) -> Tensor:
        passed.append(norm)
        return x

    monkeypatch.setattr(SharedBatchNorm, "_forward_over_ranks", noted)
    shared = SharedBatchNorm.of(nn.BatchNorm2d(3))
    copy = deepcopy(shared)
    copy(images("half")), shared(images("half"))
    assert [id(norm) for norm in passed] == [id(copy), id(shared)]


def test_checkpoints_and_tensors_stay_what_they_were() -> None:
    """A run may switch it on or off; optimizer and flat weights hold the same tensors as before."""
    plain = made("maps")
    before = {name: id(tensor) for name, tensor in (*plain.named_parameters(), *plain.named_buffers())}
    shared, saved = plain, deepcopy(plain.state_dict())
    share_statistics(shared)
    assert [type(module) for module in shared].count(SharedBatchNorm) == 2
    assert before == {name: id(tensor) for name, tensor in (*shared.named_parameters(), *shared.named_buffers())}
    shared.load_state_dict(saved)
    made("maps").load_state_dict(shared.state_dict())
    x, reference = images("maps"), made("maps")
    assert torch.equal(shared.eval()(x), reference.eval()(x)), "evaluation needs no other rank"
