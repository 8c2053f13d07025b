"""Binary RGB multi-dSprites: 0, 1 or 2 coloured sprites per image, made here; nothing is downloaded."""

from data_scripts.multi_object import coloured_sprites
from data_scripts.recipe import Recipe, Request
from data_scripts.sprites_dump import add_sprite_options, write_sprites


def make(request: Request) -> str:
    """The published recipe: 100,000 images 64x64, the first 90 % for training."""
    return write_sprites(
        "multi_dsprites", coloured_sprites(), request, {"sprites": "5,040 squares, triangles, ellipses"}
    )


RECIPE = Recipe("100,000 binary RGB images 64x64 of 0 to 2 sprites, made here", make, add_sprite_options)
