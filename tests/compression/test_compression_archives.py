"""Archives on disk: whole or not there, and refused by name where they are of another model."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from compression_cases import CASE, Array, N, compressor, header_of, images, rebuilt

from lvae_torch.compression import chain as chain_room
from lvae_torch.compression import compressor as compressor_room
from lvae_torch.compression.archive import open_archive
from lvae_torch.compression.compressor import Compressor, Contents
from lvae_torch.errors import CfgError, DataError


@pytest.fixture
def tf32_in_products_alone() -> Iterator[None]:
    """The reverse of what PyTorch does by itself."""
    products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, cudnn.allow_tf32
    products.allow_tf32, cudnn.allow_tf32 = True, False
    yield
    products.allow_tf32, cudnn.allow_tf32 = before


def test_how_a_run_multiplies_is_not_asked(archive: Path, tmp_path: Path, tf32_in_products_alone: None) -> None:
    """[train] tf32 is of a whole process: an archive is the same with it and without, and leaves it as it was."""
    compressor().compress(Array(CASE.levels(N)), tmp_path / "b.lvz", Contents("a test"), batch=8)
    assert np.array_equal(images(archive), CASE.levels(N))
    assert torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
    assert (tmp_path / "b.lvz").read_bytes() == archive.read_bytes()


def test_an_archive_gives_the_images(archive: Path) -> None:
    assert np.array_equal(images(archive), CASE.levels(N))


def test_the_same_images_make_the_same_archive(archive: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # whatever was drawn before
    compressor().compress(Array(CASE.levels(N)), tmp_path / "b.lvz", Contents("a test"), batch=8)
    assert (tmp_path / "b.lvz").read_bytes() == archive.read_bytes()


def test_sizes_add_up(tmp_path: Path) -> None:
    path = tmp_path / "a.lvz"
    written = compressor().compress(Array(CASE.levels(N)), path, Contents("a test"), batch=8)
    assert written.bits == 8 * path.stat().st_size
    assert 0 < written.container < written.bits
    assert 0 < written.account.plain_bits < written.bits - written.container


def test_training_mode_is_left_as_it_was(tmp_path: Path) -> None:
    model = CASE.model().train()
    Compressor(model, 2).compress(Array(CASE.levels(3)), tmp_path / "a.lvz", Contents("a test"), batch=2)
    assert model.training


def test_no_archive_is_left_by_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()
    push = chain_room.Chain._push

    def fails(*arguments: Any) -> bool:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return push(*arguments)

    monkeypatch.setattr(chain_room.Chain, "_push", fails)
    with pytest.raises(KeyboardInterrupt):
        compressor().compress(Array(CASE.levels(N)), tmp_path / "a.lvz", Contents("a test"), batch=4)
    assert list(tmp_path.iterdir()) == []


def test_another_model_is_named(archive: Path) -> None:
    other = CASE.model()
    with torch.no_grad():
        next(other.parameters()).add_(1e-7)
    for wrong in (Compressor(other, 2), compressor(told="other settings")):
        with pytest.raises(DataError, match="made with another model"):
            images(archive, wrong)


def test_other_conditions_are_named_and_can_be_tried(archive: Path, tmp_path: Path) -> None:
    header = header_of(archive.read_bytes())
    header["conditions"]["torch"] = "1.0"
    header["conditions"]["device"] = "cpu pdp11"
    path = tmp_path / "other.lvz"
    path.write_bytes(rebuilt(archive.read_bytes(), header))
    with pytest.raises(DataError, match=r"device was cpu pdp11, is .*; torch was 1\.0, is"):
        images(path)
    assert np.array_equal(images(path, anyway=True), CASE.levels(N))


def test_a_model_that_computes_otherwise_is_found_out(archive: Path, tmp_path: Path) -> None:
    """Its fingerprint is right, and yet another number comes out: never a wrong picture."""
    other = CASE.model()
    with torch.no_grad():
        other.head.bias.add_(1e-3)
    changed = Compressor(other, 2)
    from lvae_torch.compression.conditions import fingerprint

    header = header_of(archive.read_bytes()) | {"model": fingerprint(other, 2, "")}
    path = tmp_path / "other.lvz"
    path.write_bytes(rebuilt(archive.read_bytes(), header))
    with pytest.raises(DataError, match=r"other\.lvz: .* the model computes other numbers here"):
        images(path, changed)


def test_a_batch_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CfgError, match="use 1 to 4096"):
        compressor().compress(Array(CASE.levels(3)), tmp_path / "a.lvz", Contents("a test"), batch=5000)


def test_a_density_cannot_compress() -> None:
    model = CASE.model()
    model.in_bits = False
    with pytest.raises(CfgError, match="p\\(x\\|z\\) is no probability of pixel levels"):
        Compressor(model, CASE.n_levels)


def test_a_likelihood_that_does_not_see_all_levels_cannot_compress(tmp_path: Path) -> None:
    model = small.residual((3, 8, 8), 256, likelihood_bits=5).eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8))
    with pytest.raises(CfgError, match=r"of 32 levels, but the images have 256.*likelihood_bits = 8"):
        Compressor(model, 256).compress(Array(images), tmp_path / "a.lvz", Contents("a test"))
    assert not (tmp_path / "a.lvz").exists()


def test_a_device_without_float64_cannot_compress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressor_room, "device_of", lambda model: torch.device("mps"))
    with pytest.raises(CfgError, match=r"float64, and mps has none; add --set .run.device='cpu'"):
        compressor()


def test_errors_of_those_who_read_are_not_the_archives(archive: Path) -> None:
    with pytest.raises(NotADirectoryError), open_archive(archive):
        (archive / "below a file").write_text("")
