"""Images one batch after the other on one stack: the bits that a batch takes are those of the batches before it.

The last images are coded first, so they come back last: decoding yields the images in their order. At the very first
there is nothing to take, so some images are coded by a plain code; while the stack is small, batches are small too.

A group of images lies on the stack as its content, a check number, and its size: popped in the opposite order.
"""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import numpy as np

from lvae_torch.compression.codec import Codec, ExhaustedError
from lvae_torch.compression.plain import most_bytes, packed, unpacked
from lvae_torch.compression.stack import Stack, bits, uniform
from lvae_torch.errors import DataError

MOST_AT_ONCE = 2**20  # pixel values of a batch: what bounds the memory of decoding
CHECK_BITS = 8  # of a group's check number, at most one for each image: a first sign; the digest is the proof
FULL, MODELLED = 0.75, 0.98  # probabilities of a group being a whole batch, and of being coded by the model
RESERVE = 1.25  # bits there should be before a batch, for each that it takes on average
PLAIN = 8  # images coded by the plain code at once, at most


def most_in_a_batch(image_shape: tuple[int, int, int]) -> int:
    """Images of this (C, H, W)."""
    return min(4096, max(1, MOST_AT_ONCE // prod(image_shape)))


class LevelSource(Protocol):
    """Images as levels, in any order."""

    def __len__(self) -> int: ...

    def levels(self, first: int, n: int) -> np.ndarray:
        """Of images first .. first + n - 1, integers (n, C, H, W)."""


@dataclass
class Digest:
    """Tells sets of images from others, whatever the order in which their groups are added."""

    value: int = 0

    def add(self, first: int, levels: np.ndarray) -> None:
        """A group whose first image is number ``first``."""
        content = first.to_bytes(8, "little") + _canonical(levels)
        self.value ^= int.from_bytes(hashlib.sha256(content).digest(), "little")

    def to_bytes(self) -> bytes:
        return self.value.to_bytes(32, "little")


@dataclass
class Account:
    """Where the bits went, for reports."""

    plain_images: int = 0
    plain_bits: int = 0
    groups: int = 0
    overhead_bits: int = 0
    """Of sizes and check numbers."""


@dataclass
class Chain:
    """A codec, and how large its batches are."""

    codec: Codec
    image_shape: tuple[int, int, int]
    batch: int
    account: Account = field(default_factory=Account)

    def encode(self, source: LevelSource, stack: Stack, bits_back: float) -> bytes:
        """Push all images; ``bits_back`` is what one takes on average. Returns their digest."""
        digest, end = Digest(), len(source)
        while end > 0:
            n = min(self.batch, end, self._affordable(stack, bits_back))
            levels = source.levels(end - n, n) if n else np.empty(0)
            if n and self._push(levels, stack, end - n):
                pass
            elif n > 1:
                bits_back *= 2  # the next try is smaller
                continue
            else:
                n = min(self._plain, end)
                levels = source.levels(end - n, n)
                self._push_plain(levels, stack)
            end -= n
            digest.add(end, levels)
        return digest.to_bytes()

    def decode(self, n_images: int, stack: Stack) -> Iterator[np.ndarray]:
        """Groups of images in their order, integers (n, C, H, W); after the last the stack must be empty.

        Raises:
            DataError: if something shows that these are not the images that were pushed.
        """
        first = 0
        while first < n_images:
            is_plain, n = self._pop_size(stack)
            if not 0 < n <= n_images - first:
                raise DataError(f"image {first}: a group of {n} images, but {n_images - first} are left.")
            check = int(stack.pop(uniform(_n_checks(n), 1))[0])
            levels = self._pop_plain(n, stack) if is_plain else self.codec.decode(n, stack, first)
            if check != _check(levels):
                raise DataError(f"images {first} to {first + n - 1} do not come out as they were.")
            yield levels
            first += n
        if not stack.is_empty:
            raise DataError("there are more bits than the images account for.")

    def _affordable(self, stack: Stack, bits_back: float) -> int:
        """Images whose posteriors the stack can pay for; a model whose posteriors take nothing pays for all."""
        return int(stack.n_bits / (RESERVE * bits_back)) if bits_back else self.batch

    def _push(self, levels: np.ndarray, stack: Stack, first: int) -> bool:
        """Whether the stack had the bits it takes."""
        try:
            self.codec.encode(levels, stack, first)
        except ExhaustedError:
            return False
        self._push_head(levels, stack, is_plain=False)
        return True

    def _push_plain(self, levels: np.ndarray, stack: Stack) -> None:
        before = stack.n_bits
        code = np.frombuffer(packed(levels, self.codec.n_levels), np.uint8)
        stack.push(uniform(256, len(code)), code)
        stack.push(uniform(2**16, 2), np.array(divmod(len(code), 2**16)))
        self.account.plain_images += len(levels)
        self.account.plain_bits += stack.n_bits - before
        self._push_head(levels, stack, is_plain=True)

    def _pop_plain(self, n: int, stack: Stack) -> np.ndarray:
        upper, lower = map(int, stack.pop(uniform(2**16, 2)))
        if (length := 2**16 * upper + lower) > most_bytes(n * prod(self.image_shape), self.codec.n_levels):
            raise DataError(f"{n} images of {length:,} bytes without a model: more than they can have.")
        code = stack.pop(uniform(256, length)).astype(np.uint8).tobytes()
        return unpacked(code, (n, *self.image_shape), self.codec.n_levels)

    @property
    def _plain(self) -> int:
        return min(PLAIN, most_in_a_batch(self.image_shape))

    @property
    def _sizes(self) -> int:
        """Of groups, with 0."""
        return max(self.batch, self._plain) + 1

    def _push_head(self, levels: np.ndarray, stack: Stack, is_plain: bool) -> None:
        before, n = stack.n_bits, len(levels)
        stack.push(uniform(_n_checks(n), 1), np.array([_check(levels)]))
        is_full = n == self.batch and not is_plain
        if not is_full:
            stack.push(bits(np.array([MODELLED])), np.array([int(not is_plain)]))
            stack.push(uniform(self._sizes, 1), np.array([n]))
        stack.push(bits(np.array([FULL])), np.array([int(is_full)]))
        self.account.groups += 1
        self.account.overhead_bits += stack.n_bits - before

    def _pop_size(self, stack: Stack) -> tuple[bool, int]:
        """Whether the group is coded plainly, and how many images it has."""
        if stack.pop(bits(np.array([FULL])))[0]:
            return False, self.batch
        n = int(stack.pop(uniform(self._sizes, 1))[0])
        is_plain = not stack.pop(bits(np.array([MODELLED])))[0]
        if n > (self._plain if is_plain else self.batch):
            raise DataError(f"a group of {n} images is larger than any.")
        return is_plain, n


def _canonical(levels: np.ndarray) -> bytes:
    return np.ascontiguousarray(levels, dtype="<u2").tobytes()


def _check(levels: np.ndarray) -> int:
    return zlib.crc32(_canonical(levels)) % _n_checks(len(levels))


def _n_checks(n: int) -> int:
    """Values of the check number of a group of ``n`` images."""
    return int(2 ** min(CHECK_BITS, n))
