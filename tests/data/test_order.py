"""The order of images: a pure function of the seed and the step, shared out without loss or repetition."""

import numpy as np
import pytest

from lvae_torch.data.order import TrainingOrder, evaluation_batches, n_batches, share, spread
from lvae_torch.errors import DataError


def test_an_epoch_shows_each_image_at_most_once_and_only_the_rest_waits() -> None:
    order = TrainingOrder(103, 10, seed=1)
    assert order.steps_per_epoch == 10
    epoch = np.concatenate([order.batch(step) for step in range(10)])
    assert len(np.unique(epoch)) == 100
    assert set(epoch) <= set(range(103))


def test_over_epochs_every_image_gets_its_turn() -> None:
    order = TrainingOrder(103, 10, seed=1)
    seen = np.concatenate([order.batch(step) for step in range(40)])
    assert set(seen) == set(range(103))


def test_a_batch_depends_on_nothing_but_seed_and_step() -> None:
    forward = TrainingOrder(50, 8, seed=3)
    expected = [forward.batch(step).copy() for step in range(30)]
    jumping = TrainingOrder(50, 8, seed=3)
    for step in (29, 0, 13, 12, 6, 5, 29):
        assert np.array_equal(jumping.batch(step), expected[step])


def test_epochs_and_seeds_differ() -> None:
    first, other = TrainingOrder(1000, 1000, seed=0), TrainingOrder(1000, 1000, seed=1)
    orders = [first.batch(0), first.batch(1), other.batch(0), other.batch(1)]
    assert all((a == b).mean() < 0.02 for i, a in enumerate(orders) for b in orders[:i])


def test_the_order_stays_what_it_was_when_runs_began() -> None:
    """A change here would silently give every run that continues another order."""
    order = TrainingOrder(8, 4, seed=42)
    assert [order.batch(step).tolist() for step in (0, 1, 2)] == [[3, 4, 2, 7], [6, 1, 5, 0], [0, 4, 6, 1]]


def test_every_seed_is_welcome() -> None:
    batches = {tuple(TrainingOrder(100, 100, seed).batch(0)) for seed in (-(2**40), -2, -1, 0, 1, 2**40)}
    assert len(batches) == 6


def test_too_few_images_for_a_batch_are_told() -> None:
    with pytest.raises(DataError, match=r"7 images, fewer than \[train\] batch_size = 8; lower it"):
        TrainingOrder(7, 8, seed=0)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_ranks_share_a_batch_equally(world: int) -> None:
    batch = np.random.default_rng(0).permutation(12)
    parts = [share(batch, rank, world) for rank in range(world)]
    assert {len(part) for part in parts} == {12 // world}
    assert sorted(np.concatenate(parts)) == sorted(batch)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("n", "batch_size", "limit"), [(100, 8, 0), (96, 8, 0), (5, 8, 0), (100, 8, 30), (100, 7, 500)]
)
def test_evaluation_loses_and_repeats_nothing(world: int, n: int, batch_size: int, limit: int) -> None:
    batches = {}
    for rank in range(world):
        mine = dict(evaluation_batches(n, batch_size, rank, world, limit))
        assert all(j % world == rank for j in mine)
        batches |= mine
    assert sorted(batches) == list(range(n_batches(n, batch_size, limit)))
    assert np.array_equal(np.concatenate([batches[j] for j in sorted(batches)]), spread(n, limit))


def test_evaluation_batches_do_not_depend_on_the_number_of_ranks() -> None:
    alone = dict(evaluation_batches(50, 8, 0, 1))
    for rank in range(3):
        for j, indices in evaluation_batches(50, 8, rank, 3):
            assert np.array_equal(indices, alone[j])


@pytest.mark.parametrize(("n", "limit"), [(10_000, 1000), (10_000, 9_999), (10, 3), (10, 1), (7, 7)])
def test_a_part_is_spread_over_the_whole(n: int, limit: int) -> None:
    chosen = spread(n, limit)
    assert len(np.unique(chosen)) == limit
    assert chosen[0] == 0
    if limit > 1:
        assert chosen[-1] == n - 1
        assert np.diff(chosen).max() - np.diff(chosen).min() <= 1
