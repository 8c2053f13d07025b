"""What ``python -m data_scripts`` understands."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from data_scripts.account import FILE as ACCOUNT
from data_scripts.account import lines_of
from data_scripts.recipe import Recipe
from data_scripts.recipes import RECIPES, VARIANTS, catalogue, make
from lvae_torch.cli import Parser, path_option
from lvae_torch.data.classes import labels_told
from lvae_torch.data.dump import Dump

DUMPS = Path("dataset_dumps")
OF_DUMPS = f"folder of all dumps (default: {DUMPS})"


def parser() -> argparse.ArgumentParser:
    """What can be asked: a dataset with its options, the list, or a check."""
    arguments = Parser(
        prog="python -m data_scripts",
        description="Make dumps of datasets.",
        epilog=f"Variants, each by its own name: {', '.join(VARIANTS)}.",
    )
    arguments.add_argument("--list", action="store_true", help="show all datasets and stop")
    arguments.add_argument("--catalogue", action="store_true", help="print what dumps look like, as JSON, and stop")
    arguments.add_argument("--verify", metavar="NAME", help="compare every byte of a dump with its checksums and stop")
    arguments.add_argument("--dumps", type=path_option, default=DUMPS, help=OF_DUMPS)
    datasets = arguments.add_subparsers(dest="dataset", metavar="DATASET")
    for name, recipe in RECIPES.items():
        _add(datasets.add_parser(name, help=recipe.summary, description=recipe.summary), recipe)
    for name, (recipe, preset) in VARIANTS.items():
        variant = datasets.add_parser(name, description=f"A variant of {recipe.name}: {preset}.")
        _add(variant, recipe)
        variant.set_defaults(**preset)
    return arguments


def _add(options: argparse.ArgumentParser, recipe: Recipe) -> None:
    # No default for --dumps: it would replace what was given before the dataset.
    options.add_argument("--dumps", type=path_option, default=argparse.SUPPRESS, help=OF_DUMPS)
    options.add_argument("--mirror", help="URL or folder with the source files, instead of upstream")
    options.add_argument("--source", help="folder that you have put source files into (images: or an archive)")
    options.add_argument("--keep-raw", action="store_true", help="keep downloads (in .raw) when the dump is whole")
    recipe.add_options(options)


def command(argv: Sequence[str]) -> None:
    """Make or verify the dump that the arguments ask for, or list the datasets."""
    arguments = parser()
    options = vars(arguments.parse_args(argv))
    dataset, dumps, verify = options.pop("dataset"), options.pop("dumps"), options.pop("verify")
    is_catalogue, is_list = options.pop("catalogue"), options.pop("list")
    if is_list or is_catalogue:
        print(catalogue() if is_catalogue else table(), end="" if is_catalogue else "\n")
    elif verify:
        Dump.open(dumps, verify).verify()
        print(f"{dumps / verify}: every byte is as it was written.")
    elif dataset:
        dump = Dump.open(dumps, make(dataset, dumps, **options))
        if account := dump.provenance.get("account"):
            print("\n".join(lines_of(account)))
            print(f"all names: {dump.folder / ACCOUNT}")
        for split in dump.counts:
            if told := labels_told(dump, split):
                print(f"labels of {split}: {told}")
        counts = ", ".join(f"{split} {count:,}" for split, count in dump.counts.items())
        print(f"{dump.folder}: {counts}; images {dump.image_shape}; {dump.identity}")
    else:
        arguments.error("name a dataset, or give --list or --verify NAME")


def table() -> str:
    """All datasets, one a line, and below them the variants."""
    rows = [("dataset", "images", "pixels", "download", "dump", "licence", "access")]
    rows += [(r.name, r.images, r.pixels, r.download, r.dump, r.licence, r.access) for r in RECIPES.values()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    variants = [f"  {r.name}: {', '.join(r.variants)}" for r in RECIPES.values() if r.variants]
    return "\n".join([*lines, "", "variants, each made by its own name:", *variants])
