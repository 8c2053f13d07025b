"""Where in a file the bytes of another one lie, and how to get them. Light to import: many processes read spans."""

import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

MAX_MEMBER = 256 * 2**20  # of one unpacked file that is read into memory; the largest picture has a few MB
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip's member: signature, lengths of name and extra field
PIECE = 2**20
SLACK = 512  # more than names and extra fields take, nearly always
STORED, DEFLATED = 0, 8


class BadFileError(Exception):
    """A file that is damaged, cut off or not what it should be."""


class Span(NamedTuple):
    """A file inside a zip, a tar, or by itself."""

    path: str
    offset: int
    length: int
    """Bytes there, packed."""
    size: int
    """Bytes unpacked."""
    crc: int | None = None
    """Of the unpacked bytes; zips have it."""
    is_zipped: bool = False
    """Whether ``offset`` is that of a zip's header before the bytes."""
    method: int = STORED
    modified: int = 0
    """When the file was last changed, ns since 1970; of an archive's member, the archive itself."""

    def read(self, most: int | None = None) -> bytes:
        """The file's bytes, unpacked; ``most`` of them, or MAX_MEMBER.

        Raises:
            BadFileError: saying what is wrong.
        """
        most = most or MAX_MEMBER
        if max(self.length, self.size) > most:
            raise BadFileError(f"has more than {most:,} bytes")
        try:
            data = self._zipped() if self.is_zipped else os.pread(_opened(self.path), self.length, self.offset)
            if self.method == DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)
        except (OSError, struct.error, zlib.error) as error:
            raise BadFileError(f"damaged ({error})") from error
        if len(data) != self.size:
            raise BadFileError(f"damaged or cut off: {len(data):,} bytes, should have {self.size:,}")
        if self.crc is not None and zlib.crc32(data) != self.crc:
            raise BadFileError("damaged: wrong check sum")
        return data

    def pieces(self) -> Iterator[bytes]:
        """The file's bytes, unpacked, a part at a time: for files too large for memory.

        Raises:
            BadFileError: saying what is wrong, perhaps only at the end.
        """
        begin, unpack = self.offset, zlib.decompressobj(-zlib.MAX_WBITS) if self.method == DEFLATED else None
        size = crc = 0
        try:
            file = _opened(self.path)
            if self.is_zipped:
                _, name, extra = LOCAL_HEADER.unpack(os.pread(file, LOCAL_HEADER.size, begin))
                begin += LOCAL_HEADER.size + name + extra
            for at in range(begin, begin + self.length, PIECE):
                for data in _parts(os.pread(file, min(PIECE, begin + self.length - at), at), unpack):
                    size, crc = size + len(data), zlib.crc32(data, crc)
                    if size > self.size:  # it may be made to fill the disk
                        raise BadFileError(f"damaged: {size:,} bytes or more, should have {self.size:,}")
                    yield data
        except (OSError, struct.error, zlib.error) as error:
            raise BadFileError(f"damaged ({error})") from error
        if size != self.size or crc != (crc if self.crc is None else self.crc):
            raise BadFileError(f"damaged or cut off: {size:,} bytes, should have {self.size:,}")

    def head(self, n: int) -> bytes:
        """Up to ``n`` of the first bytes, unpacked; they are not compared with a check sum.

        Raises:
            BadFileError: if they cannot be read.
        """
        try:
            data = self._zipped(n) if self.is_zipped else os.pread(_opened(self.path), min(n, self.length), self.offset)
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, n) if self.method == DEFLATED else data[:n]
        except (OSError, struct.error, zlib.error) as error:
            raise BadFileError(f"damaged ({error})") from error

    def _zipped(self, n: int | None = None) -> bytes:
        """The packed bytes behind their header, almost always in one read."""
        file, length = _opened(self.path), self.length if n is None else min(self.length, n + SLACK)
        data = os.pread(file, LOCAL_HEADER.size + SLACK + length, self.offset)
        signature, name, extra = LOCAL_HEADER.unpack(data[: LOCAL_HEADER.size])
        if signature != b"PK\3\4":
            raise BadFileError("damaged: no header where one should be")
        begin = LOCAL_HEADER.size + name + extra
        if len(data) < begin + length:
            return os.pread(file, length, self.offset + begin)
        return data[begin : begin + length]


def _parts(packed: bytes, unpack: "zlib._Decompress | None") -> Iterator[bytes]:
    """What ``packed`` unpacks to, in parts of PIECE at most; itself, if it is stored plainly."""
    if unpack is None:
        yield packed
        return
    part = bytes(PIECE)
    while packed or len(part) == PIECE:  # a full one may have left something behind without a byte to tell of it
        part = unpack.decompress(packed, PIECE)
        packed = unpack.unconsumed_tail
        yield part


_last: list[tuple[tuple[object, ...], int]] = []  # the file that was read last: mostly the next one is the same archive


def _opened(path: str) -> int:
    now = os.stat(path)  # noqa: PTH116, in half the time, once a picture
    file = (path, now.st_dev, now.st_ino, now.st_mtime_ns)  # another one may have taken its place
    if not _last or _last[0][0] != file:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        while _last:
            os.close(_last.pop()[1])
        _last.append((file, opened))
    return _last[0][1]
