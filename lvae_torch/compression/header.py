"""What an archive says about itself. Everything is bounded: nobody knows where an archive comes from."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from lvae_torch.compression.calibration import EXPONENTS, MOST_REACH
from lvae_torch.compression.chain import most_in_a_batch
from lvae_torch.compression.conditions import STRICT, Conditions
from lvae_torch.compression.latents import Grid
from lvae_torch.errors import DataError

VERSION = 2
MOST_HEADER = 2**18  # bytes of a header
Side = Annotated[int, Field(ge=1, le=2**14)]


class GridRecord(BaseModel):
    """See ``latents.Grid``."""

    model_config = STRICT

    exponent: int = Field(ge=EXPONENTS.start, lt=EXPONENTS.stop)
    reach: int = Field(ge=1, le=MOST_REACH)
    is_scaled: bool

    @property
    def grid(self) -> Grid:
        return Grid(self.exponent, self.reach, self.is_scaled)


class Header(BaseModel):
    """The head of an archive, as JSON."""

    model_config = STRICT

    version: Literal[2]
    contents: Literal["images", "pictures"]
    """Images of one size, or picture files cut into tiles of it."""
    source: str = Field(max_length=256)
    """What was compressed, for people."""
    run: str = Field(max_length=4096)
    """The run or bundle, as it was named; that it is the same one is told by ``model``."""
    n_images: int = Field(ge=1, le=2**40)
    """Images, or tiles."""
    image_shape: tuple[Annotated[int, Field(ge=1, le=256)], Side, Side]
    """(C, H, W)."""
    n_levels: int = Field(ge=2, le=2**16)
    batch: int = Field(ge=1, le=4096)
    model: str = Field(pattern="^[0-9a-f]{64}$")
    """Its fingerprint."""
    is_robust: bool
    grids: tuple[GridRecord, ...] = Field(max_length=2048)
    """Of each latent layer, top first."""
    conditions: Conditions
    index_bytes: int = Field(ge=0, le=2**32)
    """Length of the list of pictures, packed."""

    @model_validator(mode="after")
    def _bounded(self) -> "Header":
        if self.batch > most_in_a_batch(self.image_shape):
            raise ValueError(f"batches of {self.batch} images of {self.image_shape} are too large")
        return self


def read_header(text: bytes) -> Header:
    """The header in this JSON.

    Raises:
        DataError: if it is none, or something in it is out of bounds.
    """
    try:
        return Header.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the header"
        raise DataError(f"not an archive of this program: {place}: {first['msg']}") from error
