"""``python -m lvae_torch.compression.compress RUN INPUT OUTPUT``: images into an archive, without loss."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from math import prod

from lvae_torch.cli import add_overrides, add_runs, begin, main, new_parser, path_option

PARSER = new_parser("compress")
PARSER.add_argument("run", help="a run's name or folder, or a bundle")
PARSER.add_argument("input", help="a split of the run's dataset (such as test), or a folder or a zip of pictures")
PARSER.add_argument("output", type=path_option, help="the archive to write, such as pictures.lvz")
PARSER.add_argument("--limit", type=int, default=0, help="only N images of the split, evenly spread")
PARSER.add_argument("--batch", type=int, default=64, help="images in one pass, at most (default: 64)")
PARSER.add_argument("--robust", action="store_true", help="so that other processors can decompress; takes longer")
add_runs(PARSER)
add_overrides(PARSER)
if __name__ == "__main__":
    begin(PARSER)

from lvae_torch.compression.chain import LevelSource
from lvae_torch.compression.compressor import Compressor, Contents
from lvae_torch.compression.index import packed_index
from lvae_torch.compression.pictures import PictureFiles
from lvae_torch.compression.sources import SplitLevels, ToldOf
from lvae_torch.data.images import Images
from lvae_torch.data.run_data import open_dump
from lvae_torch.elbo.batch_norm import has_statistics
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import place_of
from lvae_torch.reporting.console import table
from lvae_torch.reporting.progress import Progress
from lvae_torch.trained.loading import find_run, open_alone
from lvae_torch.trained.run import TrainedRun


def command(argv: Sequence[str]) -> None:
    """Write the archive that the arguments ask for."""
    options = PARSER.parse_args(argv)
    if options.output.exists():
        raise DataError(f"{options.output}: there already; choose another name.")
    if not options.output.resolve().parent.is_dir():
        raise DataError(f"{options.output.parent}: no such folder; make it first.")
    settings, where = find_run(options.run, options.overrides, options.runs)
    fixed = settings.val.model_copy(update={"batch_norm": "running"})
    run = open_alone(replace(settings, val=fixed), where)
    _check_fixed(run, settings.val.batch_norm, options.run)
    compressor = Compressor(run.model, run.trained_on.n_levels, run.model_settings)
    source, contents = _input(run, options)
    progress = Progress()
    told = ToldOf(source, lambda done: progress("compressing", done, len(source)))
    written = compressor.compress(told, options.output, contents, options.batch, options.robust)
    progress.close()
    n_values = len(source) * prod(run.model.image_shape)
    raw = n_values * (run.trained_on.n_levels - 1).bit_length()
    rows = [
        ("images of the model's size", f"{len(source):,}"),
        ("bytes", f"{written.bits // 8:,}"),
        ("bits/dim", f"{written.bits / n_values:.4f}"),
        ("of raw pixels", f"{100 * written.bits / raw:.1f} %"),
        (
            "images without a model, to begin with",
            f"{written.account.plain_images} in {written.account.plain_bits:,} bits",
        ),
    ]
    print(table(str(options.output), rows))


def _check_fixed(run: TrainedRun, chosen: str, named: str) -> None:
    """Check that the run is the same whenever it is opened.

    Args:
        chosen: its ``[val] batch_norm``.
    Raises:
        CfgError: if its batch norm statistics are taken anew each time.
    """
    if chosen != "running" and has_statistics(run.model):
        raise CfgError(
            f"{named}: [val] batch_norm = {chosen} takes the statistics of batch norm anew when the run is opened, and "
            f"an archive needs those that it was written with. Export the run, which fixes them, and compress with the "
            f"bundle: lvae export {named} FOLDER"
        )


def _input(run: TrainedRun, options: Namespace) -> tuple[LevelSource, Contents]:
    given = options.input
    path = place_of(given, "the input")
    if path.is_dir() and _is_split(run, given):
        raise CfgError(f"{given}: a split of {run.settings.data.dataset}, and a folder here; name the folder ./{given}")
    if path.is_dir() or path.suffix.lower() == ".zip":
        pictures = PictureFiles(path, run.model.image_shape, run.trained_on.n_levels)
        if options.limit:
            raise CfgError("--limit is of a split; leave it out with pictures.")
        return pictures, Contents(path.name, options.run, packed_index(pictures.entries))
    dump = open_dump(run.settings.data)
    if given not in dump.counts:
        raise DataError(
            f"{given}: neither a folder, nor a .zip, nor a split of {dump.folder} ({', '.join(dump.counts)})."
        )
    return SplitLevels(Images(dump.split(given), run.preprocess_of(dump), options.limit)), Contents(
        f"{dump.dataset} {given}", options.run
    )


def _is_split(run: TrainedRun, given: str) -> bool:
    try:
        return given in open_dump(run.settings.data).counts
    except DataError:  # no dump: pictures need none
        return False


if __name__ == "__main__":
    main(command)
