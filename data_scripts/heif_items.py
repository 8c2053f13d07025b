"""Where HEIC and AVIF keep coded pixels, and zeros there that no coder writes: they have no check sums."""

from collections.abc import Iterator
from typing import NamedTuple

MOST_ZEROS = {b"hvc1": 32, b"av01": 512}
"""Bytes in a row: HEVC marks the third; AV1 writes four of a plain picture of three million pixels."""


class Part(NamedTuple):
    """Some bytes of a file."""

    kind: bytes
    begin: int
    end: int


def zeros_in(data: bytes) -> str:
    """A long run of zeros in coded pixels; "" if there is none, or the file is laid out in some other way."""
    for kind, begin, end in _items(data):
        hole = data.find(bytes(MOST_ZEROS[kind]), begin, end) if kind in MOST_ZEROS else -1
        if hole >= 0:
            return f"zeros in the middle, from byte {hole:,}"
    return ""


def _items(data: bytes) -> Iterator[Part]:
    """The coded pictures of a HEIC or AVIF (ISO/IEC 14496-12): of each item its kind and where its bytes are."""
    meta = next((box for box in _boxes(data, 0, len(data)) if box.kind == b"meta"), None)
    if meta is None:
        return
    inside = {box.kind: box for box in _boxes(data, meta.begin + 4, meta.end)}
    if b"iinf" not in inside or b"iloc" not in inside:
        return
    kinds = _kinds(data, inside[b"iinf"])
    for item, begin, end in _places(data, inside[b"iloc"]):
        yield Part(kinds.get(item, b""), begin, end)


def _boxes(data: bytes, begin: int, end: int) -> Iterator[Part]:
    while begin + 8 <= end:
        length, head = int.from_bytes(data[begin : begin + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(data[begin + 8 : begin + 16], "big"), 16
        length = length or end - begin
        if length < head:
            return
        yield Part(data[begin + 4 : begin + 8], begin + head, min(begin + length, end))
        begin += length


def _kinds(data: bytes, iinf: Part) -> dict[int, bytes]:
    """What each item is coded as, by its number."""
    kinds = {}
    for entry in _boxes(data, iinf.begin + (6 if data[iinf.begin] == 0 else 8), iinf.end):
        width = 2 if data[entry.begin] < 3 else 4
        number = int.from_bytes(data[entry.begin + 4 : entry.begin + 4 + width], "big")
        kinds[number] = data[entry.begin + 6 + width : entry.begin + 10 + width]
    return kinds


def _places(data: bytes, iloc: Part) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each piece of an item that lies in this file."""
    at = iloc.begin

    def take(n_bytes: int) -> int:
        nonlocal at
        at += n_bytes
        return int.from_bytes(data[at - n_bytes : at], "big")

    version, _, sizes, base_sizes = take(1), take(3), take(1), take(1)
    number = 4 if version == 2 else 2
    for _ in range(take(number)):
        item, method = take(number), take(2) & 15 if version else 0
        take(2)
        base = take(base_sizes >> 4)
        for _ in range(take(2)):
            take(base_sizes & 15 if version else 0)
            begin, length = base + take(sizes >> 4), take(sizes & 15)
            if method == 0:
                yield item, begin, begin + length
            if at > iloc.end:  # damaged
                return
