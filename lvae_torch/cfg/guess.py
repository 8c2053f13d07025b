"""What a misspelt word of a cfg may have meant."""

import difflib
from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like ``word``; None if none is alike."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)
