"""Binary RGB multi-dSprites: 0, 1 or 2 coloured sprites per image, made here; or the file that was published."""

from data_scripts.multi_object import coloured_sprites
from data_scripts.recipe import Recipe, Request
from data_scripts.sprites_dump import add_sprite_options, write_published, write_sprites
from data_scripts.upstream import Source

FOLDER = "dsprites"
PUBLISHED = Source("multi_dsprites_color_012.npz")


def write(request: Request) -> str:
    """The published recipe: 100,000 images 64x64, the first 90 % for training."""
    if request.options["published"]:
        return write_published("multi_dsprites_published", 3, PUBLISHED, FOLDER, request)
    provenance = {"sprites": "5,040 squares, triangles, ellipses"}
    return write_sprites("multi_dsprites", coloured_sprites(), request, provenance)


RECIPE = Recipe(
    name="multi_dsprites",
    looks={
        "multi_dsprites": ((3, 64, 64), 2),
        "multi_dsprites_1": ((3, 64, 64), 2),
        "multi_dsprites_published": ((3, 64, 64), 2),
        "quickstart_sprites": ((3, 28, 28), 2),
    },
    images="90,000 + 10,000",
    pixels="64x64 binary RGB",
    download="none",
    dump="1.2 GB",
    licence="MIT (recipe)",
    write=write,
    add_own_options=add_sprite_options,
    variants={
        "multi_dsprites_1": {"objects": "1"},
        "multi_dsprites_published": {"published": True},
        "quickstart_sprites": {"objects": "1", "canvas": 28, "count": 12_000, "name": "quickstart_sprites"},
    },
)
