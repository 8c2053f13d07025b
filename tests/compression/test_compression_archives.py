"""Archives on disk: whole or not there, refused by name where they are damaged, hostile, or of another model."""

import hashlib
import itertools
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from compression_cases import CASES, Array

from lvae_torch.compression import chain as chain_room
from lvae_torch.compression import compressor as compressor_room
from lvae_torch.compression.archive import DIGEST, LENGTH, MAGIC, open_archive
from lvae_torch.compression.compressor import Compressor, Contents
from lvae_torch.errors import CfgError, DataError

CASE = CASES["spatial bernoulli"]
N = 40


def compressor(told: str = "") -> Compressor:
    return Compressor(CASE.model(), CASE.n_levels, told)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "a.lvz"
    compressor().compress(Array(CASE.levels(N)), path, Contents("a test"), batch=8)
    return path


def images(path: Path, by: Compressor | None = None, anyway: bool = False) -> np.ndarray:
    with (by or compressor()).opened(path, anyway) as (_, groups):
        return np.concatenate(list(groups))


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


def rebuilt(data: bytes, header: dict[str, Any] | None = None, words: bytes | None = None) -> bytes:
    """An archive with another header or other words, whose own digest is right: as somebody hostile would make it."""
    (n_text,) = LENGTH.unpack(data[len(MAGIC) : len(MAGIC) + LENGTH.size])
    first = len(MAGIC) + LENGTH.size
    text = data[first : first + n_text] if header is None else json.dumps(header).encode()
    body = data[first + n_text : -2 * DIGEST] if words is None else words
    head = MAGIC + LENGTH.pack(len(text)) + text + body + data[-2 * DIGEST : -DIGEST]
    return head + hashlib.sha256(head).digest()[:DIGEST]


def header_of(data: bytes) -> dict[str, Any]:
    (n_text,) = LENGTH.unpack(data[len(MAGIC) : len(MAGIC) + LENGTH.size])
    first = len(MAGIC) + LENGTH.size
    found: dict[str, Any] = json.loads(data[first : first + n_text])
    return found


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


HOSTILE = [
    {"n_images": 2**40},
    {"n_images": 0},
    {"n_images": N + 1},
    {"n_images": N - 1},
    {"batch": 2**30},
    {"batch": 7},
    {"image_shape": [1, 2**14, 2**14]},
    {"image_shape": [3, 8, 8]},
    {"n_levels": 65536},
    {"n_levels": 3},
    {"grids": []},
    {"grids": [{"exponent": 0, "reach": 1, "is_scaled": True}] * 3000},
    {"grids": [{"exponent": 14, "reach": 2**18, "is_scaled": True}] * 2},
    {"grids": [{"exponent": 2**60, "reach": 1, "is_scaled": True}] * 2},
    {"grids": [{"exponent": 0, "reach": 2**62, "is_scaled": True}] * 2},
    {"grids": [{"exponent": 0, "reach": 16, "is_scaled": False}] * 2},
    {"index_bytes": 2**32},
    {"index_bytes": 10**9},
    {"index_bytes": -4},
    {"version": 1},
    {"model": "../" * 20},
    {"is_robust": True},
    {"more": 1},
    {"conditions": {}},
]


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: str(change)[:40])
def test_hostile_headers_are_refused(archive: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "hostile.lvz"
    path.write_bytes(rebuilt(archive.read_bytes(), header_of(archive.read_bytes()) | change))
    with pytest.raises(DataError, match=r"hostile\.lvz"):
        images(path)


def test_threads_of_a_hostile_header_are_not_started(archive: Path, tmp_path: Path) -> None:
    header = header_of(archive.read_bytes())
    header["conditions"]["threads"] = 4096
    path = tmp_path / "hostile.lvz"
    path.write_bytes(rebuilt(archive.read_bytes(), header))
    with pytest.raises(DataError, match="4096 threads"):
        images(path)


def damages(data: bytes, n: int, seed: int) -> Iterator[bytes]:
    """Flipped bits, cuts, and words and headers changed by somebody who knows the digest."""
    rng = np.random.default_rng(seed)
    (n_text,) = LENGTH.unpack(data[len(MAGIC) : len(MAGIC) + LENGTH.size])
    body = data[len(MAGIC) + LENGTH.size + n_text : -2 * DIGEST]
    for i in range(n):
        kind = i % 6
        if kind == 0:
            yield _flipped(data, rng)
        elif kind == 1:
            yield data[: int(rng.integers(0, len(data)))]
        elif kind == 2:
            yield rebuilt(data, words=_flipped(body, rng))
        elif kind == 3:
            yield rebuilt(data, words=body[4 * int(rng.integers(1, len(body) // 4)) :])
        elif kind == 4:
            yield rebuilt(data, words=rng.integers(0, 256, 4 * int(rng.integers(0, 200)), np.uint8).tobytes())
        else:
            yield rebuilt(data, _promising(header_of(data), rng))


def _promising(header: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A header with another value of one key, of the same type for the most part: sizes that are not there."""
    key = str(rng.choice([key for key in header if key not in ("source", "run", "conditions")]))
    value = header[key]
    if isinstance(value, int) and not isinstance(value, bool):
        wrong: Any = int(rng.choice([-1, 0, value + 1, value - 1, 4096, 2**31, 2**40, 2**63]))
        return header | {key: wrong if wrong != value else value + 7}
    if isinstance(value, list):
        changed = json.loads(json.dumps(value))
        at = int(rng.integers(0, len(value)))
        if isinstance(changed[at], dict):
            field = str(rng.choice(["exponent", "reach"]))
            changed[at][field] += int(rng.choice([-1, 1, 1000, 2**17]))
        else:
            changed[at] = int(rng.choice([0, 1000, 2**14, 2**40]))
        return header | {key: changed}
    return header | {key: not value if isinstance(value, bool) else "0" * 64}


def _flipped(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    changed[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
    return bytes(changed)


def _check_damages(archive: Path, tmp_path: Path, n: int, seed: int) -> None:
    path, wanted, by, refused = tmp_path / "damaged.lvz", CASE.levels(N), compressor(), 0
    for damaged in damages(archive.read_bytes(), n, seed):
        path.write_bytes(damaged)
        try:
            assert np.array_equal(images(path, by), wanted)
        except DataError as error:
            assert "damaged.lvz" in str(error)
            refused += 1
    assert refused > 0.99 * n


def test_damaged_archives_are_refused(archive: Path, tmp_path: Path) -> None:
    _check_damages(archive, tmp_path, n=72, seed=0)


@pytest.mark.slow
def test_a_thousand_damages(archive: Path, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _check_damages(archive, tmp_path, n=1000, seed=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2**20


def test_an_archive_that_promises_images_without_bits_ends_at_once(tmp_path: Path) -> None:
    """Nothing is decoded from an empty stack, however many images the header promises."""
    path = tmp_path / "a.lvz"
    compressor().compress(Array(CASE.levels(1)), path, Contents("a test"), batch=8)
    header = header_of(path.read_bytes()) | {"n_images": 2**40}
    path.write_bytes(rebuilt(path.read_bytes(), header))
    with pytest.raises(DataError, match=r"it ends 1,099,511,627,775 images early"):
        images(path)


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.lvz"
    for content in (b"", b"PK\x03\x04", MAGIC, MAGIC + b"\xff" * 4, MAGIC + b"\x00" * 200):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.lvz"):
            images(path)
    with pytest.raises(DataError, match="cannot be read"):
        images(tmp_path / "missing.lvz")
