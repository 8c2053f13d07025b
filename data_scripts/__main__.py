"""``python -m data_scripts <dataset> [--dumps DIR] [--mirror URL_or_DIR]``: make a dump."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from data_scripts.recipe import Request
from data_scripts.recipes import RECIPES
from lvae_torch.cli import main
from lvae_torch.data.dump import Dump


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog="python -m data_scripts", description="Make dumps of datasets.")
    verbs = arguments.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    for name, recipe in RECIPES.items():
        options = verbs.add_parser(name, help=recipe.summary, description=recipe.summary)
        options.add_argument("--dumps", type=Path, default=Path("dataset_dumps"), help="folder of all dumps")
        options.add_argument("--mirror", help="URL or folder with the source files, instead of upstream")
        options.add_argument("--keep-raw", action="store_true", help="keep what was downloaded")
        recipe.add_options(options)
    verify = verbs.add_parser("verify", help="compare every byte of a dump with its checksums")
    verify.add_argument("name", help="the dump")
    verify.add_argument("--dumps", type=Path, default=Path("dataset_dumps"), help="folder of all dumps")
    return arguments


def command(argv: Sequence[str]) -> None:
    """Make or verify the dump that the arguments ask for."""
    options = vars(parser().parse_args(argv))
    dataset, dumps = options.pop("dataset"), options.pop("dumps")
    if dataset == "verify":
        Dump.open(dumps, options["name"]).verify()
        print(f"{dumps / options['name']}: every byte is as it was written.")
        return
    keep_raw = options.pop("keep_raw")
    request = Request(dumps, options.pop("mirror"), options)
    name = RECIPES[dataset].make(request)
    if not keep_raw:
        shutil.rmtree(request.raw, ignore_errors=True)
    dump = Dump.open(dumps, name)
    counts = ", ".join(f"{split} {sum(s.count for s in shards):,}" for split, shards in dump.shards.items())
    print(f"{dump.folder}: {counts}; images {dump.image_shape}; content {dump.content_hash[:12]}")


if __name__ == "__main__":
    main(command)
