"""A code for images that needs no stack: a filter as PNG has them, and deflate. The chain begins with it."""

import zlib

import numpy as np

from lvae_torch.errors import DataError

FILTERS = ("none", "left", "above", "both")


def packed(levels: np.ndarray, n_levels: int) -> bytes:
    """Integers (n, C, H, W) as bytes: a number of the filter that serves best, then what is left, deflated."""
    codes = [bytes([f]) + zlib.compress(_bytes(_filtered(levels, name, n_levels), n_levels), 9)
             for f, name in enumerate(FILTERS)]  # fmt: skip
    return min(codes, key=len)


def most_bytes(n_values: int, n_levels: int) -> int:
    """That ``packed`` makes of ``n_values``."""
    raw = _n_raw(n_values, n_levels)
    return raw + raw // 1000 + 64


def unpacked(code: bytes, shape: tuple[int, ...], n_levels: int) -> np.ndarray:
    """The integers, int64 of ``shape``.

    Raises:
        DataError: if that is no code of such images.
    """
    n_values = int(np.prod(shape))
    n_raw = _n_raw(n_values, n_levels)
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(code[1:], n_raw + 1)
    except zlib.error as error:
        raise DataError(f"images without a model: {error}") from error
    if len(raw) != n_raw or not code or code[0] >= len(FILTERS):
        raise DataError("images without a model: of another size, or by an unknown filter")
    left = _values(raw, n_values, n_levels).reshape(shape)
    return _unfiltered(left, FILTERS[code[0]], n_levels)


def _filtered(levels: np.ndarray, name: str, n_levels: int) -> np.ndarray:
    left = levels.astype(np.int64)
    for axis in _axes(name):
        left = np.diff(left, axis=axis, prepend=0)
    return left % n_levels


def _unfiltered(left: np.ndarray, name: str, n_levels: int) -> np.ndarray:
    for axis in _axes(name):
        left = np.cumsum(left, axis=axis)
    return left % n_levels


def _axes(name: str) -> tuple[int, ...]:
    return {"none": (), "left": (3,), "above": (2,), "both": (2, 3)}[name]


def _n_raw(n_values: int, n_levels: int) -> int:
    """Bytes before they are deflated."""
    if n_levels == 2:
        return -(-n_values // 8)
    return n_values if n_levels <= 256 else 2 * n_values


def _bytes(values: np.ndarray, n_levels: int) -> bytes:
    if n_levels == 2:
        return np.packbits(values.astype(np.uint8).reshape(-1)).tobytes()
    return np.ascontiguousarray(values, dtype="u1" if n_levels <= 256 else "<u2").tobytes()


def _values(raw: bytes, n_values: int, n_levels: int) -> np.ndarray:
    if n_levels == 2:
        return np.unpackbits(np.frombuffer(raw, np.uint8), count=n_values).astype(np.int64)
    return np.frombuffer(raw, dtype="u1" if n_levels <= 256 else "<u2").astype(np.int64)
