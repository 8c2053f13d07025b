"""Codebooks: first codes, restarts, and shares of ranks."""

from pathlib import Path

import pytest
import small
import torch
import torch.distributed as dist
from tf32 import Tf32
from torch.multiprocessing.spawn import spawn
from torch.testing import assert_close

from lvae_torch.errors import CfgError
from lvae_torch.models.sources import posterior_sample
from lvae_torch.models.vqvae import codebook as codebooks
from lvae_torch.models.vqvae.codebook import (
    Codebook,
    EmaCodebook,
    LearnedCodebook,
    k_means,
    nearest,
)


def test_k_means_finds_clusters() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], dtype=torch.float64)
    rows = centres.repeat(40, 1) + 0.1 * torch.randn(120, 2, dtype=torch.float64)
    means = rows.view(40, 3, 2).mean(dim=0)
    found = min((k_means(rows, 3) for _ in range(10)), key=lambda c: torch.cdist(means, c).amin(dim=1).sum().item())
    assert_close(found[nearest(means, found)], means)


def test_a_model_begins_at_the_clusters_of_its_encodings() -> None:
    model = small.vqvae(start="k_means").eval()
    x = small.images(40, model.image_shape, 256)
    model.initialize(x)
    codes = model.train()(x, posterior_sample).latents[0].z
    assert len(codes.unique()) == 5
    few = small.vqvae((1, 4, 4), start="k_means")
    with pytest.raises(CfgError, match=r"4 vectors are too few for 5 clusters. Raise \[train\] batch_size"):
        few.initialize(small.images(4, (1, 4, 4), 256))
    assert not small.vqvae().quantizer.starts_at_data


@pytest.mark.parametrize("kind", [LearnedCodebook, EmaCodebook])
def test_an_unused_code_begins_anew_at_a_vector_of_the_batch(kind: type[Codebook]) -> None:
    torch.manual_seed(0)
    codebook = kind(4, 2, restart_after=3)
    start = torch.tensor([[0.0, 0.0], [5.0, 5.0], [-5.0, 5.0], [99.0, 99.0]])
    codebook.start_at(start)
    rows = start[:3].repeat(10, 1)
    for step in range(3):
        assert torch.equal(codebook.vectors[3], start[3]) or kind is EmaCodebook, step
        assert codebook.idle.tolist() == [0, 0, 0, step]
        codebook.learn(rows, nearest(rows, codebook.vectors))
    assert codebook.idle.tolist() == [0, 0, 0, 0]
    assert any(torch.equal(codebook.vectors[3], row) for row in start[:3])
    if kind is LearnedCodebook:
        assert torch.equal(codebook.vectors[:3], start[:3])


def test_without_restarts_nothing_is_counted() -> None:
    codebook = LearnedCodebook(4, 2)
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    codebook.learn(torch.randn(9, 2), torch.zeros(9, dtype=torch.int64))
    assert all(torch.equal(before[name], value) for name, value in codebook.state_dict().items())


def learn_shares(rank: int, results: Path) -> None:
    """One of two ranks, which learns from every other row."""
    dist.init_process_group("gloo", init_method=f"file://{results / 'store'}", rank=rank, world_size=2)
    try:
        states = {str(after): trained_codebook(rank, 2, after).state_dict() for after in (0, 2)}
        torch.save(states, results / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def trained_codebook(rank: int, world: int, restart_after: int) -> EmaCodebook:
    """Three steps; two of the eight codes lie far from all that is encoded."""
    torch.manual_seed(0)
    codebook = EmaCodebook(8, 3, restart_after).double()
    codebook.start_at(torch.cat([torch.randn(6, 3, dtype=torch.float64), torch.full((2, 3), 50.0).double()]))
    for step in range(3):
        torch.manual_seed(step)
        rows = torch.randn(40, 3, dtype=torch.float64)[rank::world]
        torch.manual_seed(100 + rank)  # ranks draw other numbers
        codebook.learn(rows, nearest(rows, codebook.vectors))
    return codebook


def test_ranks_share_one_codebook_that_of_one_rank(tmp_path: Path) -> None:
    """To rounding that of the joined batch; to the bit that of the other rank, also where codes begin anew."""
    spawn(learn_shares, (tmp_path,), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    alone = trained_codebook(0, 1, restart_after=0).state_dict()
    for name, value in one["0"].items():
        assert_close(value, alone[name])
    for after in ("0", "2"):
        assert all(torch.equal(value, other[after][name]) for name, value in one[after].items())
    assert one["0"]["averages"].amax() > 40
    assert one["2"]["averages"].amax() < 10


def close_codes() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows, (N, D), and codes, (K, D), that are close to one another and far from zero."""
    torch.manual_seed(0)
    codes = 3 * torch.randn(1, 32) + 0.05 * torch.randn(64, 32)
    return codes[torch.randint(64, (500,))] + 0.02 * torch.randn(500, 32), codes


def test_a_card_that_rounds_products_chooses_the_nearest_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, codes = close_codes()
    expected = nearest(rows.double(), codes.double())
    with Tf32():
        assert (nearest(rows, codes) != expected).float().mean() > 0.01  # what the parts are for
        monkeypatch.setattr(codebooks, "products_are_rounded", lambda x: x.dtype == torch.float32)
        assert torch.equal(nearest(rows, codes), expected)


def test_a_card_that_rounds_products_adds_up_the_rows_of_each_code(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, codes = close_codes()
    chosen = codebooks.indicators(nearest(rows, codes), 64, rows.dtype)
    monkeypatch.setattr(codebooks, "products_are_rounded", lambda x: x.dtype == torch.float32)
    with Tf32():
        sums = codebooks.of_each_code(chosen, rows)
    assert_close(sums, (chosen.T.double() @ rows.double()).float(), rtol=1e-6, atol=1e-5)
