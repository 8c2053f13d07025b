"""Each frame of a GIF, APNG, WebP or TIFF as a picture of its own."""

from data_scripts.archives import reading
from data_scripts.render import Frame
from data_scripts.rows import Readable
from data_scripts.sources.found import Pictures, is_row
from data_scripts.spans import BadFileError
from data_scripts.viewing import frame_numbers, opened

HEAD = 4096  # in which a PNG says that it is moving
FRAMED = ("GIF", "TIFF", "WEBP", "AVIF")


def one_by_one(pictures: Pictures) -> Pictures:
    """The same pictures, those of several frames as ``name#1``, ``name#2`` and so on."""
    found = Pictures(pictures.path, label_names=pictures.label_names)
    for name, span in pictures.spans.items():
        frames = [0] if is_row(span) else _frames(span, name, pictures)
        for number in frames:
            inner = f"{name}#{frames.index(number) + 1}" if len(frames) > 1 else name
            found.spans[inner] = Frame(span, number) if len(frames) > 1 else span
            if name in pictures.labels:
                found.labels[inner] = pictures.labels[name]
    return found


def _frames(span: Readable, name: str, pictures: Pictures) -> list[int]:
    """Numbers of the frames; a damaged picture counts as one, and is told of where it is decoded."""
    with reading(pictures.path, name):
        head = span.head(HEAD)
        if head.startswith((b"\xff\xd8", b"\x89PNG")) and b"acTL" not in head:
            return [0]
        try:
            with opened(data := span.read(None)) as picture:  # type: ignore[arg-type]
                return frame_numbers(picture) if picture.format in ("PNG", *FRAMED) and data else [0]
        except (BadFileError, OSError, ValueError, SyntaxError, EOFError):
            return [0]
