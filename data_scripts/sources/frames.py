"""Each frame of a GIF, APNG, WebP or TIFF as a picture of its own."""

from data_scripts.account import Account
from data_scripts.archives import reading
from data_scripts.kinds import kind_of
from data_scripts.render import Frame
from data_scripts.rows import Readable
from data_scripts.sources.found import Pictures, is_row
from data_scripts.spans import BadFileError
from data_scripts.viewing import View, any_size, frame_numbers, opened

HEAD = 4096  # bytes that tell of most pictures that they have one frame, so that they need not be read whole


def by_frame(pictures: Pictures, view: View, account: Account) -> Pictures:
    """The same pictures, those of several frames as ``name#1``, ``name#2`` and so on, or only the first of each."""
    found = Pictures(pictures.path, label_names=pictures.label_names)
    for name, span in pictures.spans.items():
        numbers = [0] if is_row(span) or not view.frames else _frames(span, name, pictures, view)
        named = {f"{name}#{k}" if len(numbers) > 1 else name: number for k, number in enumerate(numbers, 1)}
        if view.frames == "first":
            for later in list(named)[1:]:
                account.note(later, "frames behind the first of their picture, left out")
            named = {name: numbers[0]}
        elif len(named) > 1:
            account.n_seen += len(named) - 1
            account.note(name, "of several frames, each a picture of its own")
        for inner, number in named.items():
            found.spans[inner] = Frame(span, number) if len(named) > 1 else span
            if name in pictures.labels:
                found.labels[inner] = pictures.labels[name]
    return found


def _may_move(head: bytes) -> bool:
    """Whether a picture that begins so may have several frames."""
    match kind_of(head):
        case "PNG":
            return b"acTL" in head or b"IDAT" not in head  # the one stands before the other
        case "WEBP":
            return head[12:16] == b"VP8X" and bool(head[20] & 2)
        case "AVIF":
            return b"avis" in head
        case kind:
            return kind in ("GIF", "TIFF")


def _frames(span: Readable, name: str, pictures: Pictures, view: View) -> list[int]:
    """Numbers of the frames; a damaged picture counts as one, and is told of where it is decoded."""
    with reading(pictures.path, name):
        try:
            if not _may_move(span.head(HEAD)):
                return [0]
            with any_size(), opened(span.read(view.max_bytes)) as picture:  # type: ignore[arg-type]
                return frame_numbers(picture)
        except (BadFileError, OSError, ValueError, SyntaxError, EOFError):
            return [0]
