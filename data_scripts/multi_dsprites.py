"""Binary RGB multi-dSprites: 0, 1 or 2 coloured sprites per image, made here; nothing is downloaded."""

from pathlib import Path

from data_scripts.multi_object import coloured_sprites
from data_scripts.recipe import Recipe, Request
from data_scripts.sprites_dump import add_sprite_options, write_sprites


def write(request: Request, raw: Path) -> str:
    """The published recipe: 100,000 images 64x64, the first 90 % for training."""
    provenance = {"sprites": "5,040 squares, triangles, ellipses"}
    return write_sprites("multi_dsprites", coloured_sprites(), request, provenance)


RECIPE = Recipe(
    name="multi_dsprites",
    images="90,000 + 10,000",
    pixels="64x64 binary RGB",
    download="none",
    dump="1.2 GB",
    licence="MIT (recipe)",
    write=write,
    add_own_options=add_sprite_options,
)
