"""The robust mode: another number of threads or another batch in the networks changes no bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compression_cases import CASES, Array
from torch import Tensor, nn

from lvae_torch.compression.compressor import Compressor, Contents
from lvae_torch.compression.rounding import Rounding
from lvae_torch.distributions import Bernoulli, DiagonalGaussian

SOME = ["spatial mixture", "very deep 8 bits", "ladder", "hierarchical VAE", "VLAE", "VQ-VAE", "PixelCNN"]


class Shaken(nn.Module):
    """Every layer's output is off by a few units in the last place, as if sums had run in another order."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.seed = 0
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(self._shake)

    def _shake(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self.seed += 1
        noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(self.seed), dtype=output.dtype)
        return output * (1 + 8 * torch.finfo(output.dtype).eps * noise)


def compressed(name: str, path: Path, is_robust: bool, n: int = 30) -> np.ndarray:
    case = CASES[name]
    levels = case.levels(n)
    written = Compressor(case.model(), case.n_levels).compress(
        Array(levels), path, Contents("a test"), batch=6, is_robust=is_robust
    )
    assert written.account.plain_images <= n // 2
    return levels


@pytest.mark.parametrize("name", SOME)
def test_sums_in_another_order_change_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = compressed(name, tmp_path / "a.lvz", is_robust=True)
    case = CASES[name]
    from lvae_torch.compression import compressor as room

    widened = room.widened

    def shaken(model: Any) -> Any:
        copy = widened(model)
        Shaken(copy)
        return copy

    monkeypatch.setattr(room, "widened", shaken)
    with Compressor(case.model(), case.n_levels).opened(tmp_path / "a.lvz") as (_, groups):
        assert np.array_equal(np.concatenate(list(groups)), levels)


def test_other_threads_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive made by one thread is decoded by two, although its header asks for one."""
    name = "very deep 8 bits"
    levels = compressed(name, tmp_path / "a.lvz", is_robust=True)
    set_threads, asked = torch.set_num_threads, []

    def two(n: int) -> None:
        asked.append(n)
        set_threads(2)

    monkeypatch.setattr(torch, "set_num_threads", two)
    try:
        with Compressor(CASES[name].model(), CASES[name].n_levels).opened(tmp_path / "a.lvz") as (archive, groups):
            assert torch.get_num_threads() == 2
            assert archive.header.conditions.threads == asked[0]
            assert np.array_equal(np.concatenate(list(groups)), levels)
    finally:
        set_threads(asked[0])


@pytest.mark.parametrize("name", ["spatial mixture", "very deep 8 bits", "ladder"])
def test_other_batches_change_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that see a batch in two parts decode what one that saw it whole has encoded."""
    levels = compressed(name, tmp_path / "a.lvz", is_robust=True)
    split = 0

    def in_two(apply: Any) -> Any:
        def applied(self: nn.Module, x: Tensor) -> Tensor:
            nonlocal split
            split += 1
            return torch.cat([apply(self, part) for part in x.split(max(1, len(x) // 2))])

        return applied

    for kind in {type(m) for m in CASES[name].model().modules() if isinstance(m, nn.Conv2d | nn.Linear)}:
        monkeypatch.setattr(kind, "forward", in_two(kind.forward))
    with Compressor(CASES[name].model(), CASES[name].n_levels).opened(tmp_path / "a.lvz") as (_, groups):
        assert np.array_equal(np.concatenate(list(groups)), levels)
    assert split


def test_robust_archives_do_not_ask_for_the_machine(tmp_path: Path) -> None:
    compressed("ladder", tmp_path / "a.lvz", is_robust=True)
    with Compressor(CASES["ladder"].model(), 2).opened(tmp_path / "a.lvz") as (archive, _):
        told = archive.header.conditions
        elsewhere = told.model_copy(update={"device": "cpu aarch64 SVE", "torch": "9.9", "threads": 64})
        assert told.differences(elsewhere, is_robust=True) == []
        assert len(told.differences(elsewhere, is_robust=False)) == 2


def test_rounding_is_of_all_tensors_and_off_by_default() -> None:
    q = DiagonalGaussian(torch.tensor([0.1], dtype=torch.float64), torch.tensor([-0.7], dtype=torch.float64))
    rounded = Rounding(True)(q)
    assert rounded.mean.item() == round(0.1 * 2**16) / 2**16
    assert rounded.log_std.item() == round(-0.7 * 2**16) / 2**16
    assert Rounding(False)(q) is q
    assert Rounding(True)(Bernoulli(q.mean, reference=True)).reference
