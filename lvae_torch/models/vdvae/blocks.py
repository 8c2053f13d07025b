"""The block strings of VDVAE (Child 2020): ``enc_blocks``, ``dec_blocks`` and ``custom_width_str``.

A string lists blocks in the order in which a pass runs through them. A resolution is the height of a block's maps.

    AxN     N blocks at resolution A
    A       one block
    AdK     bottom-up: one block whose output is averaged over K x K places, so that A / K follows
    AmK     top-down: one block that first adds the state of resolution K
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

ITEM = re.compile(r"\s*(\d+)\s*(?:([xdm])\s*(\d+)\s*)?")
MOST_BLOCKS = 10_000  # more are a typing error, and would be met as a lack of memory


@dataclass(frozen=True)
class EncoderBlock:
    """One bottom-up block; its maps have height ``resolution`` before, and ``resolution / pool`` after it."""

    resolution: int
    pool: int = 1


@dataclass(frozen=True)
class DecoderBlock:
    """One top-down block, which is one latent layer; None adds no other resolution's state."""

    resolution: int
    mixin: int | None = None


@dataclass(frozen=True)
class Widths:
    """Channels of the maps of each resolution."""

    default: int
    custom: Mapping[int, int]

    def __getitem__(self, resolution: int) -> int:
        return self.custom.get(resolution, self.default)


def encoder_blocks(text: str) -> list[EncoderBlock]:
    """The bottom-up blocks, finest first.

    Raises:
        ValueError: naming the item that cannot be read.
    """
    return [
        EncoderBlock(resolution, number if kind == "d" else 1)
        for resolution, kind, number in _items(text, "d")
        for _ in range(number if kind == "x" else 1)
    ]


def decoder_blocks(text: str) -> list[DecoderBlock]:
    """The top-down blocks, coarsest first.

    Raises:
        ValueError: naming the item that cannot be read.
    """
    return [
        DecoderBlock(resolution, number if kind == "m" else None)
        for resolution, kind, number in _items(text, "m")
        for _ in range(number if kind == "x" else 1)
    ]


def custom_widths(text: str, default: int) -> Widths:
    """From ``resolution:width, resolution:width``; other resolutions have the default.

    Raises:
        ValueError: naming the item that cannot be read.
    """
    custom: dict[int, int] = {}
    for item in text.split(",") if text.strip() else []:
        match = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", item)
        if match is None or 0 in (sizes := (int(match[1]), int(match[2]))):
            raise ValueError(f"{item.strip()!r} is no resolution:width, both at least 1")
        if custom.setdefault(*sizes) != sizes[1]:
            raise ValueError(f"resolution {sizes[0]} has two widths")
    return Widths(default, custom)


def _items(text: str, linking: str) -> Iterator[tuple[int, str, int]]:
    """(resolution, kind, number) of each item; a plain resolution is one block of it."""
    total = 0
    for item in text.split(","):
        match = ITEM.fullmatch(item)
        kind, number = (match[2] or "x", int(match[3] or 1)) if match else ("", 0)
        if match is None or kind not in ("x", linking) or 0 in (int(match[1]), number):
            raise ValueError(
                f"{item.strip()!r} is no block; write A, AxN or A{linking}K with whole numbers from 1 on, "
                "separated by commas"
            )
        total += number if kind == "x" else 1
        if total > MOST_BLOCKS:
            raise ValueError(f"{item.strip()!r}: more than {MOST_BLOCKS:,} blocks")
        yield int(match[1]), kind, number


def bias_resolutions(decoder: Sequence[DecoderBlock], no_bias_above: int) -> list[int]:
    """Resolutions whose state begins as a learned map, coarsest first; the others begin at zero."""
    return sorted({block.resolution for block in decoder if block.resolution <= no_bias_above})


def misfits(
    encoder: Sequence[EncoderBlock], decoder: Sequence[DecoderBlock], widths: Widths, no_bias_above: int
) -> Iterator[str]:
    """Everything that does not fit between blocks that are right each by themselves."""
    finest = encoder[0].resolution
    yield from _encoder_misfits(encoder)
    yield from _decoder_misfits(encoder, decoder, no_bias_above)
    if widths[finest] != widths.default:
        yield (
            f"custom_width_str gives resolution {finest}, the image's, {widths[finest]} channels; that is width = "
            f"{widths.default}"
        )
    used = sorted({block.resolution for block in decoder} | {size for b in encoder for size in _sizes(b)})
    for coarse, fine in pairwise(used):
        if widths[coarse] < widths[fine]:
            yield (
                f"resolution {coarse} has {widths[coarse]} channels, resolution {fine} {widths[fine]}; towards coarser "
                "maps widths may only stay or grow"
            )
    if unused := sorted(set(widths.custom) - set(used)):
        yield f"custom_width_str names resolutions that no block has: {', '.join(map(str, unused))}"


def _sizes(block: EncoderBlock) -> tuple[int, int]:
    return block.resolution, block.resolution // block.pool


def _encoder_misfits(encoder: Sequence[EncoderBlock]) -> Iterator[str]:
    size = encoder[0].resolution
    for i, block in enumerate(encoder):
        if block.resolution != size:
            yield f"enc_blocks: block {i} is at {block.resolution}, but gets maps of resolution {size}"
        if block.resolution % block.pool:
            yield f"enc_blocks: block {i}, {block.resolution}d{block.pool}: {block.pool} does not divide it"
        size = block.resolution // block.pool


def _decoder_misfits(
    encoder: Sequence[EncoderBlock], decoder: Sequence[DecoderBlock], no_bias_above: int
) -> Iterator[str]:
    finest = encoder[0].resolution
    known = {size for block in encoder for size in _sizes(block)}
    states = set(bias_resolutions(decoder, no_bias_above))
    for i, block in enumerate(decoder):
        name = f"dec_blocks: block {i} at {block.resolution}"
        if block.resolution not in known:
            yield f"{name} has no partner: enc_blocks makes maps of {', '.join(map(str, sorted(known)))}"
        if block.mixin is not None and (block.mixin >= block.resolution or block.resolution % block.mixin):
            yield f"{name} cannot add the state of {block.mixin}, which must be coarser and divide it"
        elif block.mixin is not None and block.mixin not in states:
            yield f"{name} adds the state of {block.mixin}, but no block before it has that resolution"
        states.add(block.resolution)
    if finest not in {block.resolution for block in decoder}:
        yield f"dec_blocks has no block at {finest}, the resolution of the image"
