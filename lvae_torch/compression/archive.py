"""Archives on disk: a header, a list of pictures if there are any, the words of the stack, and two digests.

An archive is written aside and renamed when it is whole; its own digest is checked before anything in it is believed,
and that of the images before what was decoded is put in place.
"""

import hashlib
import hmac
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lvae_torch.compression.chain import Account, Chain, Digest, LevelSource
from lvae_torch.compression.header import MOST_HEADER, Header, read_header
from lvae_torch.compression.stack import Stack, Words
from lvae_torch.errors import DataError
from lvae_torch.files import atomic_write

MAGIC = b"LVAEZIP\x01"
LENGTH = struct.Struct("<I")  # of the header
DIGEST = 16  # bytes kept of each
PIECE = 2**20  # bytes read at once


@dataclass(frozen=True)
class Written:
    """Sizes of an archive, in bits."""

    bits: int
    container: int
    """Header, list of pictures and digests."""
    account: Account


def write_archive(path: Path, header: Header, index: bytes, chain: Chain, source: LevelSource, back: float) -> Written:
    """Compress all images of ``source`` into ``path``; ``back`` is what the posteriors of one take, in bits.

    Raises:
        DataError: if the file cannot be written.
    """
    text = header.model_dump_json().encode()
    if len(text) > MOST_HEADER:
        raise DataError(f"{path}: its header would be {len(text):,} bytes long, at most {MOST_HEADER:,}.")
    head = MAGIC + LENGTH.pack(len(text)) + text + index
    with tempfile.TemporaryFile(dir=path.parent) as aside, atomic_write(path) as file:
        words = Words(aside)
        stack = Stack(words, spills=True)
        images = chain.encode(source, stack, back)
        stack.settle()
        digest = hashlib.sha256()
        aside.seek(0)
        for piece in (head, *_pieces(aside, 4 * words.count), images[:DIGEST]):
            digest.update(piece)
            file.write(piece)
        file.write(digest.digest()[:DIGEST])
    size = 8 * (len(head) + 2 * DIGEST)
    return Written(size + 32 * words.count, size, chain.account)


def _pieces(file: BinaryIO, n_bytes: int) -> Iterator[bytes]:
    while n_bytes and (piece := file.read(min(PIECE, n_bytes))):
        n_bytes -= len(piece)
        yield piece


@dataclass(frozen=True)
class Archive:
    """An archive that is open, and whose own digest is right."""

    path: Path
    header: Header
    file: BinaryIO
    first_word: int
    """Where the words begin, in bytes."""
    n_words: int
    images_digest: bytes

    @property
    def index(self) -> bytes:
        """The packed list of pictures."""
        self.file.seek(self.first_word - self.header.index_bytes)
        return self.file.read(self.header.index_bytes)

    def images(self, chain: Chain) -> Iterator[np.ndarray]:
        """All images in their order, group by group; they are to be believed only after the last.

        Raises:
            DataError: naming the file, if something shows that these are not the images that were compressed.
        """
        digest, first = Digest(), 0
        stack = Stack(Words(self.file, self.first_word, self.n_words), spills=False)
        try:
            for levels in chain.decode(self.header.n_images, stack):
                yield levels
                digest.add(first, levels)
                first += len(levels)
            if not hmac.compare_digest(digest.to_bytes()[:DIGEST], self.images_digest):
                raise DataError("the digest of the images is another.")
        except DataError as error:
            raise DataError(
                f"{self.path}: {error} The archive is damaged, or the model computes other numbers here than where "
                "it was made; compress with --robust for use on other machines."
            ) from error


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The archive at ``path``.

    Raises:
        DataError: naming the file, if it is missing, damaged or no archive.
    """
    with ExitStack() as held:
        try:
            archive = _opened(path, held.enter_context(open(path, "rb")))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
        yield archive


def _opened(path: Path, file: BinaryIO) -> Archive:
    size = os.fstat(file.fileno()).st_size
    start = file.read(len(MAGIC) + LENGTH.size)
    if not start.startswith(MAGIC) or len(start) < len(MAGIC) + LENGTH.size:
        raise DataError(f"{path}: not an archive of this program.")
    (n_text,) = LENGTH.unpack(start[len(MAGIC) :])
    if n_text > min(MOST_HEADER, size):
        raise DataError(f"{path}: damaged: a header of {n_text:,} bytes.")
    text = file.read(n_text)
    _check_digest(path, file, size)
    try:
        header = read_header(text)
    except DataError as error:
        raise DataError(f"{path}: {error}.") from error
    first_word = len(start) + n_text + header.index_bytes
    n_bytes = size - 2 * DIGEST - first_word
    if n_bytes < 0 or n_bytes % 4:
        raise DataError(f"{path}: damaged: {size:,} bytes cannot be right.")
    file.seek(size - 2 * DIGEST)
    return Archive(path, header, file, first_word, n_bytes // 4, file.read(DIGEST))


def _check_digest(path: Path, file: BinaryIO, size: int) -> None:
    digest = hashlib.sha256()
    file.seek(0)
    for piece in _pieces(file, max(0, size - DIGEST)):
        digest.update(piece)
    if not hmac.compare_digest(digest.digest()[:DIGEST], file.read(DIGEST)):
        raise DataError(f"{path}: damaged: its digest is another. Get the file again.")
