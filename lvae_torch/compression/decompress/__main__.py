"""``python -m lvae_torch.compression.decompress ARCHIVE OUTPUT``: the images of an archive, as they were."""

from argparse import Namespace
from collections.abc import Sequence

from lvae_torch.cli import add_overrides, add_runs, begin, main, new_parser, path_option

PARSER = new_parser("decompress")
PARSER.add_argument("archive", type=path_option, help="what compress has written")
PARSER.add_argument("output", type=path_option, help="a new folder for PNG files; with --dump, the new dump's folder")
PARSER.add_argument("--run", help="the run or bundle that it was made with (default: as it was named then)")
PARSER.add_argument("--dump", action="store_true", help="write a dump with one split, named decompressed")
PARSER.add_argument("--anyway", action="store_true", help="try also where versions or the machine differ")
add_runs(PARSER)
add_overrides(PARSER)
if __name__ == "__main__":
    begin(PARSER)

from lvae_torch.compression.archive import open_archive
from lvae_torch.compression.compressor import Compressor
from lvae_torch.compression.index import read_index
from lvae_torch.compression.outputs import numbered, write_dump, write_pictures
from lvae_torch.compression.sources import counted
from lvae_torch.errors import CfgError
from lvae_torch.files import check_name
from lvae_torch.reporting.progress import Progress
from lvae_torch.trained.loading import find_run, open_alone
from lvae_torch.trained.run import TrainedRun

SPLIT = "decompressed"


def command(argv: Sequence[str]) -> None:
    """Write the images that an archive holds."""
    options = PARSER.parse_args(argv)
    run = _run(options)
    shape, n_levels = run.model.image_shape, run.trained_on.n_levels
    compressor = Compressor(run.model, n_levels, run.model_settings)
    with compressor.opened(options.archive, options.anyway) as (archive, groups):
        progress, total = Progress(), archive.header.n_images
        groups = counted(groups, lambda done: progress("decompressing", done, total))
        is_tiled = archive.header.contents == "pictures"
        if options.dump:
            if is_tiled:
                raise CfgError(f"{options.archive}: holds pictures of any size; leave --dump out.")
            name = check_name(options.output.name, "the dump")
            n = write_dump(options.output.parent, name, SPLIT, groups, shape, n_levels)
        else:
            entries = read_index(archive.index) if is_tiled else numbered(archive.header.n_images, shape)
            n = write_pictures(options.output, groups, entries, shape, n_levels)
    print(f"{options.output}: {n:,} images, as they were compressed.")


def _run(options: Namespace) -> TrainedRun:
    """The one that the options name, or else the archive."""
    with open_archive(options.archive) as archive:
        named = options.run or archive.header.run
    try:
        settings, where = find_run(named, options.overrides, options.runs)
    except CfgError as error:
        if options.run:
            raise
        raise CfgError(f"{options.archive}: its run was named {named!r} then. Name it with --run: {error}") from error
    return open_alone(settings, where)


if __name__ == "__main__":
    main(command)
