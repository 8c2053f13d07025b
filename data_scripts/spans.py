"""Where in a file the bytes of another one lie, and how to get them. Light to import: many processes read spans."""

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

MAX_MEMBER = 256 * 2**20  # of one unpacked file that is read into memory; the largest picture has a few MB
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip's member: signature, lengths of name and extra field
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

    def read(self) -> bytes:
        """The file's bytes, unpacked.

        Raises:
            BadFileError: saying what is wrong.
        """
        if max(self.length, self.size) > MAX_MEMBER:
            raise BadFileError(f"has more than {MAX_MEMBER:,} bytes")
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

    def _zipped(self) -> bytes:
        """The packed bytes behind their header, almost always in one read."""
        file = _opened(self.path)
        data = os.pread(file, LOCAL_HEADER.size + SLACK + self.length, self.offset)
        signature, name, extra = LOCAL_HEADER.unpack(data[: LOCAL_HEADER.size])
        if signature != b"PK\3\4":
            raise BadFileError("damaged: no header where one should be")
        begin = LOCAL_HEADER.size + name + extra
        if len(data) < begin + self.length:
            return os.pread(file, self.length, self.offset + begin)
        return data[begin : begin + self.length]


_last: list[tuple[tuple[object, ...], int]] = []  # the file that was read last: mostly the next one is the same archive


def _opened(path: str) -> int:
    now = Path(path).stat()
    file = (path, now.st_dev, now.st_ino, now.st_mtime_ns)  # another one may have taken its place
    if not _last or _last[0][0] != file:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        while _last:
            os.close(_last.pop()[1])
        _last.append((file, opened))
    return _last[0][1]
