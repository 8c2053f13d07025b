"""Images one batch after the other on one stack: the bits that a batch takes are those of the batches before it.

The last images are coded first, so they come back last: decoding yields the images in their order. At the very first
there is nothing to take, so some images are coded by a plain code; while the stack is small, batches are small too.

Groups of one size in a row are a run: it lies on the stack as its groups, each with a check number if it is large, and
on top of them how many they are, their size, and whether the model codes them. So small batches cost next to nothing.
"""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Protocol

import numpy as np

from lvae_torch.compression.codec import Codec, ExhaustedError
from lvae_torch.compression.plain import most_bytes, packed, unpacked
from lvae_torch.compression.stack import Stack, uniform
from lvae_torch.errors import DataError

MOST_AT_ONCE = 2**20  # pixel values of a batch: what bounds the memory of decoding
CHECK_BITS = 8  # of a group's check number, at most: a first sign; the digest is the proof
CHECKED = 2**13  # pixel values that are worth one of them
MOST_IN_A_RUN = 2**12 - 1
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
    overhead_bits: int = 0
    """Of runs and check numbers."""


@dataclass(frozen=True)
class Run:
    """Groups in a row that are alike; the empty one is what a chain begins with."""

    is_plain: bool = False
    n_images: int = 0
    """Of each group."""
    n_groups: int = 0


@dataclass
class Chain:
    """A codec, and how large its batches are."""

    codec: Codec
    image_shape: tuple[int, int, int]
    batch: int
    account: Account = field(default_factory=Account)

    def encode(self, source: LevelSource, stack: Stack, bits_back: float) -> bytes:
        """Push all images; ``bits_back`` is what one takes on average. Returns their digest."""
        digest, end, run = Digest(), len(source), Run()
        while end > 0:
            is_plain, n = self._next(stack, bits_back, end)
            if (is_plain, n) != (run.is_plain, run.n_images) or run.n_groups == MOST_IN_A_RUN:
                self._push_run(run, stack)
                run = Run(is_plain, n)
            levels = source.levels(end - n, n)
            if is_plain:
                self._push_plain(levels, stack)
            elif not self._push(levels, stack, end - n):
                bits_back *= 2  # the next try is smaller, or a plain group
                continue
            self._push_check(levels, stack)
            run = replace(run, n_groups=run.n_groups + 1)
            end -= n
            digest.add(end, levels)
        self._push_run(run, stack)
        return digest.to_bytes()

    def decode(self, n_images: int, stack: Stack) -> Iterator[np.ndarray]:
        """Groups of images in their order, integers (n, C, H, W); after the last the stack must be empty.

        Raises:
            DataError: if something shows that these are not the images that were pushed.
        """
        first = 0
        while first < n_images:
            run = self._pop_run(stack, n_images - first)
            for _ in range(run.n_groups):
                n = run.n_images
                check = self._pop_check(n, stack)
                levels = self._pop_plain(n, stack) if run.is_plain else self.codec.decode(n, stack, first)
                if check != self._check(levels):
                    raise DataError(f"images {first} to {first + n - 1} do not come out as they were.")
                yield levels
                first += n
        if not stack.is_empty:
            raise DataError("there are more bits than the images account for.")

    def _next(self, stack: Stack, bits_back: float, n_left: int) -> tuple[bool, int]:
        """Whether the next group is coded plainly, and how many images it has."""
        if n := min(self.batch, n_left, self._affordable(stack, bits_back)):
            return False, n
        return True, min(self._plain, n_left)

    def _affordable(self, stack: Stack, bits_back: float) -> int:
        """Images whose posteriors the stack can pay for; a model whose posteriors take nothing pays for all."""
        return int(stack.n_bits / (RESERVE * bits_back)) if bits_back else self.batch

    def _push(self, levels: np.ndarray, stack: Stack, first: int) -> bool:
        """Whether the stack had the bits it takes."""
        try:
            self.codec.encode(levels, stack, first)
        except ExhaustedError:
            return False
        return True

    def _push_plain(self, levels: np.ndarray, stack: Stack) -> None:
        before = stack.n_bits
        code = np.frombuffer(packed(levels, self.codec.n_levels), np.uint8)
        stack.push(uniform(256, len(code)), code)
        stack.push(uniform(2**16, 2), np.array(divmod(len(code), 2**16)))
        self.account.plain_images += len(levels)
        self.account.plain_bits += stack.n_bits - before

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

    def _push_run(self, run: Run, stack: Stack) -> None:
        if not run.n_groups:
            return
        before = stack.n_bits
        stack.push(uniform(2, 1), np.array([int(run.is_plain)]))
        stack.push(uniform(self._sizes, 1), np.array([run.n_images]))
        stack.push(uniform(MOST_IN_A_RUN + 1, 1), np.array([run.n_groups]))
        self.account.overhead_bits += stack.n_bits - before

    def _pop_run(self, stack: Stack, n_left: int) -> Run:
        if stack.is_empty:  # below a run there is at least its size
            raise DataError(f"it ends {n_left:,} images early.")
        n_groups, n, is_plain = (int(stack.pop(uniform(k, 1))[0]) for k in (MOST_IN_A_RUN + 1, self._sizes, 2))
        run = Run(bool(is_plain), n, n_groups)
        if not 0 < n * n_groups <= n_left or n > (self._plain if run.is_plain else self.batch):
            raise DataError(f"{n_groups:,} groups of {n} images, but {n_left:,} images are left.")
        return run

    def _push_check(self, levels: np.ndarray, stack: Stack) -> None:
        before = stack.n_bits
        if (n_checks := self._n_checks(len(levels))) > 1:
            stack.push(uniform(n_checks, 1), np.array([self._check(levels)]))
        self.account.overhead_bits += stack.n_bits - before

    def _pop_check(self, n: int, stack: Stack) -> int:
        n_checks = self._n_checks(n)
        return int(stack.pop(uniform(n_checks, 1))[0]) if n_checks > 1 else 0

    def _check(self, levels: np.ndarray) -> int:
        return zlib.crc32(_canonical(levels)) % self._n_checks(len(levels))

    def _n_checks(self, n: int) -> int:
        """Values of the check number of a group of ``n`` images."""
        return int(2 ** min(CHECK_BITS, n * prod(self.image_shape) // CHECKED))


def _canonical(levels: np.ndarray) -> bytes:
    return np.ascontiguousarray(levels, dtype="<u2").tobytes()
