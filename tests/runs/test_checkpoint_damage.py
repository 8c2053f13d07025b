"""Checkpoints that are damaged, planted, cut off by kills or refused by the disk."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_checkpoints import assert_whole, names, pair, saved, state_of

from lvae_torch.errors import DataError
from lvae_torch.runs.checkpoints import CheckpointStore

# Damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def swap_with_the_one_before(path: Path) -> None:
    before = path.with_name(path.name.replace("3", "2"))
    path.rename(path.with_name("x"))
    before.rename(path)
    path.with_name("x").rename(before)


def use_another_programs(path: Path) -> None:
    path.write_text('{"version": 1}' if path.suffix == ".json" else "a text")


def swap_both(path: Path) -> None:
    for suffix in (".json", ".pt"):
        swap_with_the_one_before(path.with_suffix(suffix))


@pytest.mark.parametrize("suffix", [".pt", ".json"])
@pytest.mark.parametrize("damage", [cut, flip_a_bit, zero, use_another_programs, Path.unlink])
def test_damage_is_named_and_the_one_before_is_used(
    tmp_path: Path, damage: Callable[[Path], None], suffix: str
) -> None:
    saved(tmp_path, 1, 2, 3)
    path = (tmp_path / pair(3)[0]).with_suffix(suffix)
    damage(path)
    if path.exists():
        with pytest.raises(DataError, match=path.stem):
            CheckpointStore(tmp_path).load("last")
    said: list[str] = []
    state = CheckpointStore(tmp_path).load_newest(said.append)
    assert state is not None and assert_whole(state) == 2
    if damage is Path.unlink and suffix == ".json":  # as a kill leaves it
        assert said == []
        return
    assert len(said) == 1 and path.stem in said[0]
    aside = [name + ".damaged" for name in pair(3) if damage is not Path.unlink or not name.endswith(suffix)]
    assert names(tmp_path) == sorted([*pair(1), *pair(2), *aside])
    saved(tmp_path, 3, keep=2)
    assert names(tmp_path) == sorted([*pair(2), *pair(3), *aside])


@pytest.mark.parametrize("swap", [swap_with_the_one_before, swap_both])
def test_swapped_files_are_both_refused(tmp_path: Path, swap: Callable[[Path], None]) -> None:
    saved(tmp_path, 1, 2, 3)
    swap(tmp_path / pair(3)[1])
    said: list[str] = []
    state = CheckpointStore(tmp_path).load_newest(said.append)
    assert state is not None and assert_whole(state) == 1
    assert ["00000003" in said[0], "00000002" in said[1], len(said)] == [True, True, 2]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    store = saved(tmp_path, 3)
    path = tmp_path / pair(3)[1]
    size = path.stat().st_size
    flip_a_bit(path)
    with pytest.raises(DataError, match=r"step_00000003\.pt: damaged \(its sha256 is not that of what was written\)"):
        store.load("last")
    cut(path)
    with pytest.raises(DataError, match=rf"damaged \({size - 100:,} bytes instead of {size:,}\)"):
        store.load("last")
    path.unlink()
    with pytest.raises(DataError, match=r"damaged \(cannot be read: No such file"):
        store.load("last")


def test_no_flipped_bit_of_a_manifest_goes_unnoticed(tmp_path: Path) -> None:
    """It may change a blank into another, but never what is loaded."""
    store = saved(tmp_path, 3, best=(3,))
    path = tmp_path / pair(3)[0]
    good, generator = path.read_bytes(), random.Random(0)
    for _ in range(200):
        data = bytearray(good)
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        try:
            assert assert_whole(store.load("best")) == 3
        except DataError as error:
            assert "step_00000003" in str(error)


def test_a_run_never_starts_from_nothing_because_all_are_damaged(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    for step in (1, 2):
        zero(tmp_path / pair(step)[1])
    before = names(tmp_path)
    for _ in range(2):  # the second start is refused just as the first
        said: list[str] = []
        with pytest.raises(DataError, match="every checkpoint is damaged, from step 1 to 2"):
            CheckpointStore(tmp_path).load_newest(said.append)
        assert len(said) == 2 and names(tmp_path) == before


def test_a_damaged_manifest_does_not_stop_a_run(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3)
    (tmp_path / pair(2)[0]).write_text("{")
    store = saved(tmp_path, 4, keep=1)
    assert names(tmp_path) == sorted([*pair(2), *pair(4)])
    assert assert_whole(store.load("last")) == 4


@pytest.mark.parametrize("part", ["model", "ema", "optimizer"])
def test_weights_that_are_not_finite_are_named_and_the_one_before_is_used(tmp_path: Path, part: str) -> None:
    bad = {"part": {"w": torch.tensor([1.0, float("nan")]), "n": torch.tensor(3)}}
    store = saved(tmp_path, 1)
    store.save(2, {**state_of(2), part: bad})
    store.wait()
    said: list[str] = []
    state = store.load_newest(said.append)
    assert state is not None and assert_whole(state) == 1
    assert f"step_00000002.pt: damaged ({part}.part.w is not finite)" in said[0]
