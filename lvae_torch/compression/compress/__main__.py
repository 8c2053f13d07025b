"""``python -m lvae_torch.compression.compress RUN INPUT OUTPUT``: images into an archive, without loss."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

from lvae_torch.cli import add_overrides, main, new_parser

PARSER = new_parser("compress")
PARSER.add_argument("run", help="a run's name or folder, or a bundle")
PARSER.add_argument("input", help="a split of the run's dataset (such as test), or a folder or a zip of pictures")
PARSER.add_argument("output", type=Path, help="the archive to write, such as pictures.lvz")
PARSER.add_argument("--limit", type=int, default=0, help="only N images of the split, evenly spread")
PARSER.add_argument("--batch", type=int, default=64, help="images in one pass, at most (default: 64)")
PARSER.add_argument("--robust", action="store_true", help="so that other processors can decompress; takes longer")
PARSER.add_argument("--runs", default="runs", help="folder of all runs, where a name is given")
add_overrides(PARSER)
if __name__ == "__main__":
    PARSER.parse_args()  # --help and wrong usage are answered before PyTorch is imported, which takes seconds

from lvae_torch.compression.chain import LevelSource
from lvae_torch.compression.compressor import Compressor, Contents
from lvae_torch.compression.pictures import PictureFiles, packed_index
from lvae_torch.compression.sources import SplitLevels, ToldOf
from lvae_torch.data.images import Images
from lvae_torch.data.run_data import open_dump
from lvae_torch.distributed.place import choose_device
from lvae_torch.distributed.processes import Processes
from lvae_torch.errors import CfgError, DataError
from lvae_torch.reporting.console import table
from lvae_torch.reporting.progress import Progress
from lvae_torch.trained.loading import find_run, open_run
from lvae_torch.trained.run import TrainedRun


def command(argv: Sequence[str]) -> None:
    """Write the archive that the arguments ask for."""
    options = PARSER.parse_args(argv)
    if options.output.exists():
        raise DataError(f"{options.output}: there already; choose another name.")
    if not options.output.resolve().parent.is_dir():
        raise DataError(f"{options.output.parent}: no such folder; make it first.")
    settings, where = find_run(options.run, options.overrides, options.runs)
    run = open_run(settings, where, Processes(0, 1, choose_device(settings.run.device)))
    source, contents = _input(run, options.input, options.limit)
    progress = Progress()
    told = ToldOf(source, lambda done: progress("compressing", done, len(source)))
    written = compressor_of(run).compress(told, options.output, contents, options.batch, options.robust)
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


def compressor_of(run: TrainedRun) -> Compressor:
    """The run's model, with its settings as a part of its fingerprint.

    Raises:
        CfgError: if the model has no probability of pixel levels.
    """
    if not run.model.in_bits:
        raise CfgError(
            f"{run.name}: p(x|z) is no probability of pixel levels, so its images cannot be compressed without loss. "
            "Of a VQ-VAE the codes can: write them with [synthesis] codes_to, and compress that dump with a PixelCNN."
        )
    return Compressor(run.model, run.trained_on.n_levels, run.settings.model.model_dump_json())


def _input(run: TrainedRun, given: str, limit: int) -> tuple[LevelSource, Contents]:
    path = Path(given).expanduser()
    if path.is_dir() or path.suffix == ".zip":
        pictures = PictureFiles(path, run.model.image_shape, run.trained_on.n_levels)
        if limit:
            raise CfgError("--limit is of a split; leave it out with pictures.")
        return pictures, Contents(path.name, packed_index(pictures.entries))
    dump = open_dump(run.settings.data)
    if given not in dump.counts:
        raise DataError(
            f"{given}: neither a folder, nor a .zip, nor a split of {dump.folder} ({', '.join(dump.counts)})."
        )
    return SplitLevels(Images(dump.split(given), run.preprocess_of(dump), limit)), Contents(f"{dump.dataset} {given}")


if __name__ == "__main__":
    main(command)
