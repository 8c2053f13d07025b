"""The stack of bits: an ANS coder whose deeper words lie in a file, so that memory does not grow with the images.

Asymmetric numeral systems (Duda 2009) are last in, first out: what was pushed last is popped first, and popping symbols
that were never pushed draws them from their distribution, at the price of their information content. Pushing them again
restores the stack to the bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np

from lvae_torch.errors import CfgError, DataError

PRECISION = 24  # bits of all probabilities, so the most that one symbol can cost
WORD = 32
MOST_IN_MEMORY = 2**18  # words of the stack, of which KEPT stay when the others go to the file
KEPT = 2**16
LEAST_STD = 2.0**-8  # in grid steps: all mass on one integer, but for what every symbol has
LARGEST = 2.0**30  # of means and standard deviations, in grid steps


@lru_cache(maxsize=1)
def coding() -> Any:
    """The package that does the coding.

    Raises:
        CfgError: if it is not installed.
    """
    try:
        import constriction
    except ImportError as error:
        raise CfgError("compression needs the package constriction: pip install 'lvae_torch[compression]'") from error
    return constriction


@dataclass(frozen=True)
class Symbols:
    """Independent symbols, (n,), one distribution each."""

    model: Any
    """A model of ``constriction``."""
    params: tuple[np.ndarray, ...]
    """Its parameters for each symbol."""

    def __len__(self) -> int:
        return len(self.params[0])


Coder = Callable[[Symbols, np.ndarray | None], np.ndarray]
"""(distributions, symbols if they are known) -> symbols, int32 (n,): pops unknown ones, or notes known ones."""


def gaussians(mean: np.ndarray, std: np.ndarray, reach: int) -> Symbols:
    """Integers -reach .. reach with the mass that N(mean, std^2) has around each; every one has at least 2^-24.

    Raises:
        DataError: if a parameter is not a number: the model is broken, or the archive is.
    """
    if np.isnan(mean).any() or np.isnan(std).any():
        raise DataError("the model gives means or standard deviations of z that are not numbers.")
    model = coding().stream.model.QuantizedGaussian(-reach, reach)
    return Symbols(model, (_flat(mean.clip(-LARGEST, LARGEST)), _flat(std.clip(LEAST_STD, LARGEST))))


def bits(p: np.ndarray) -> Symbols:
    """Bits that are 1 with probability ``p``; both values have at least 2^-24.

    Raises:
        DataError: if a probability is not a number.
    """
    if np.isnan(p).any():
        raise DataError("the model gives probabilities that are not numbers.")
    return Symbols(coding().stream.model.Bernoulli(perfect=False), (_flat(p.clip(0, 1)),))


def uniform(size: int, n: int) -> Symbols:
    """``n`` integers 0 .. size - 1; 2 <= size < 2^24."""
    return Symbols(coding().stream.model.Uniform(), (np.full(n, size, dtype=np.int32),))


def _flat(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float64).reshape(-1)


@dataclass
class Words:
    """A stack of 32-bit words in a part of a file, from byte ``start``."""

    file: BinaryIO
    start: int = 0
    count: int = 0

    def push(self, words: np.ndarray) -> None:
        self.file.seek(self.start + 4 * self.count)
        self.file.write(words.astype("<u4").tobytes())
        self.count += len(words)

    def pop(self, n: int) -> np.ndarray:
        """The upper ``n`` words, or as many as there are, lowest first."""
        n = min(n, self.count)
        self.count -= n
        self.file.seek(self.start + 4 * self.count)
        return np.frombuffer(self.file.read(4 * n), dtype="<u4").astype(np.uint32)


class Stack:
    """Bits, of which the upper are in memory. ``spills`` says whether ``below`` may be written."""

    def __init__(self, below: Words, spills: bool) -> None:
        self._below = below
        self._spills = spills
        self._coder = coding().stream.stack.AnsCoder()
        self.is_overdrawn = False
        """Whether more was popped than there was."""

    @property
    def n_bits(self) -> int:
        return WORD * self._below.count + int(self._coder.num_valid_bits())

    @property
    def is_empty(self) -> bool:
        return self._below.count == 0 and bool(self._coder.is_empty())

    def push(self, symbols: Symbols, values: np.ndarray) -> None:
        """Push ``values``, int32 (n,), so that they are popped together and in their order."""
        self._reserve(2)  # the coder's own state, without which it would begin a stack of its own
        self._coder.encode_reverse(np.ascontiguousarray(values, dtype=np.int32), symbols.model, *symbols.params)
        if self._spills and self._coder.num_words() > MOST_IN_MEMORY:
            words = self._coder.get_compressed()
            self._below.push(words[:-KEPT])
            self._coder = coding().stream.stack.AnsCoder(words[-KEPT:])

    def pop(self, symbols: Symbols, known: np.ndarray | None = None) -> np.ndarray:
        """Symbols, int32 (n,); a ``Coder`` that knows none."""
        if len(symbols) == 0:
            return np.empty(0, dtype=np.int32)
        self._reserve(len(symbols) * PRECISION // WORD + 3)
        popped: np.ndarray = self._coder.decode(symbols.model, *symbols.params)
        # A coder with words below keeps two of them as its state.
        self.is_overdrawn |= self._below.count == 0 and self._coder.num_words() < 2
        return popped

    def _reserve(self, words: int) -> None:
        """Bring so many words into memory, where there are as many."""
        if self._coder.num_words() >= words or self._below.count == 0:
            return
        joined = np.concatenate([self._below.pop(words + KEPT), self._coder.get_compressed()])
        if joined[-1] == 0:
            raise DataError("no stack of bits ends with a word of zeros.")
        self._coder = coding().stream.stack.AnsCoder(joined)

    def stir(self, n_words: int, seed: int) -> None:
        """Exclusive or of the upper ``n_words`` with noise; the same again undoes it.

        Where posteriors are like priors, a batch would pop the very z that the batch before has pushed. This way every
        batch draws from fresh bits, and what a first, plain code pushed is as random as a posterior's samples must be.
        """
        self._reserve(n_words + 2)
        words = self._coder.get_compressed()
        n = min(n_words, len(words) - 2)  # the last two are the coder's state
        if n > 0:
            noise = np.random.Philox(key=seed).random_raw(n).astype(np.uint32)
            words[-2 - n : -2] ^= noise
            self._coder = coding().stream.stack.AnsCoder(words)

    def snapshot(self) -> tuple[Any, int]:
        """To ``restore`` after pops; pushes may overwrite what it refers to."""
        return self._coder.clone(), self._below.count

    def restore(self, snapshot: tuple[Any, int]) -> None:
        self._coder, self._below.count = snapshot
        self.is_overdrawn = False

    def settle(self) -> None:
        """Write all words to ``below``: the stack is finished."""
        self._below.push(self._coder.get_compressed())
        self._coder.clear()


class Record:
    """A ``Coder`` that knows all symbols, and pushes them in the end: what is noted first will be popped first."""

    def __init__(self) -> None:
        self._notes: list[tuple[Symbols, np.ndarray]] = []

    def __call__(self, symbols: Symbols, known: np.ndarray | None) -> np.ndarray:
        assert known is not None, "a record is of known symbols"
        if len(symbols):
            self._notes.append((symbols, known))
        return known

    def push(self, stack: Stack) -> None:
        while self._notes:
            stack.push(*self._notes.pop())
