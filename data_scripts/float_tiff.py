"""TIFFs whose pixels Pillow has no mode for."""

import io
import logging
from functools import cache
from typing import Any

from data_scripts.spans import BadFileError


@cache
def tifffile() -> Any:
    """The module, which else prints beside what it raises."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    return tifffile


class FloatTiff:
    """A TIFF whose pixels Pillow has no mode for, such as three floats: head and pages by tifffile."""

    format, mode = "TIFF", "F"

    def __init__(self, data: bytes) -> None:
        try:
            with tifffile().TiffFile(io.BytesIO(data)) as file:
                pages: list[Any] = [page for page in file.pages if not getattr(page, "is_reduced", False)]
                self.height, self.width = pages[0].shape[:2]
        except Exception as error:  # a damaged file may raise anything
            raise BadFileError(f"cannot be read ({error})") from error
        self.n_frames, self.is_animated = len(pages), len(pages) > 1
        self.tile: list[Any] = []
        self.tag_v2: dict[int, int] = {}
        self.info: dict[str, object] = {}

    def seek(self, frame: int) -> None:
        pass

    def getexif(self) -> dict[int, int]:
        return {}

    def __enter__(self) -> "FloatTiff":
        return self

    def __exit__(self, *_: object) -> None:
        pass
