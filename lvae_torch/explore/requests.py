"""What the page asks for: typed and bounded, so that nothing is begun for a request that makes no sense.

Bounds that depend on the run, such as the number of its layers, are checked by the views.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lvae_torch.trained.outputs import Picture

MOST_SEED = 2**31 - 1
MOST_IMAGES = 1024
MOST_POINTS = 5000

Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Layer = Annotated[int, Field(ge=0, le=10_000)]
Factor = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Temperature = Factor | tuple[Literal["linear"], Factor, Factor] | Annotated[list[Factor], Field(max_length=10_000)]


class Ask(BaseModel):
    """The base of all: unknown keys and values of other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class OfSplit(Ask):
    """An image of the run's dataset."""

    split: Annotated[str, Field(max_length=100)]
    index: Annotated[int, Field(ge=0, le=2**40)]


class OfUpload(Ask):
    """An image that was dropped onto the page, by the name that the server gave it."""

    upload: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class OfSeed(Ask):
    """A sample of the model itself."""

    seed: Seed


class OfPoint(Ask):
    """A point of the plane, for models of such."""

    point: tuple[Coordinate, Coordinate]


Image = OfSplit | OfUpload | OfSeed | OfPoint


class Keep(Ask):
    """Which sample's top layers all images share."""

    sample: Annotated[int, Field(ge=0, lt=MOST_POINTS)]
    layers: Layer


class View(Ask):
    """What is asked of a view."""

    label: Annotated[int, Field(ge=0, le=2**20)] | None = None
    """Of a class-conditional run: the class; None for that of ``subject``, or 0 where this has none."""

    @property
    def subject(self) -> Image | None:
        """The image that the view is about."""
        return None


class Samples(View):
    """Images from the prior."""

    seed: Seed = 0
    n: Annotated[int, Field(ge=1, le=MOST_POINTS)] = 64
    temperature: Temperature = 1.0
    show: Picture = "mean"
    keep: Keep | None = None


class Reconstruction(View):
    """An image and what the model makes of it."""

    image: Image
    seed: Seed = 0
    temperature: Temperature = 1.0
    """Of the layers that are drawn anew in the progressive reconstruction."""
    heat: Layer | None = None
    """The layer whose KL is shown over the image; None for the sum of all."""

    @property
    def subject(self) -> Image:
        return self.image


class Mix(View):
    """Two images, and images between them."""

    a: Image
    b: Image
    layers: Layer = 0
    """How many top layers come from a, the rest from b."""
    weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    """The place on the line from a (0) to b (1)."""

    @property
    def subject(self) -> Image:
        return self.a


class Move(Ask):
    """A channel of a layer, and the value that it gets, in standard deviations of its prior."""

    layer: Layer
    channel: Annotated[int, Field(ge=0, le=2**20)]
    value: Annotated[float, Field(ge=-6, le=6, allow_inf_nan=False)]
    at: tuple[Annotated[int, Field(ge=0, le=2**16)], Annotated[int, Field(ge=0, le=2**16)]] | None = None
    """(row, column) of a place on the layer's map; None for everywhere."""


class Latents(View):
    """An image whose latents are moved."""

    base: Image
    temperature: Temperature = 1.0
    """Of the base, where it is a sample."""
    moves: Annotated[list[Move], Field(min_length=1, max_length=16)]

    @property
    def subject(self) -> Image:
        return self.base
