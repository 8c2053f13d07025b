"""Archives that are damaged, or were made by somebody hostile, are refused by name."""

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compression_cases import CASE, Array, N, compressor, header_of, images, rebuilt

from lvae_torch.compression.archive import DIGEST, LENGTH, MAGIC
from lvae_torch.compression.compressor import Contents
from lvae_torch.errors import DataError

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
