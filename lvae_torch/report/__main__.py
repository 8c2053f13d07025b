"""``python -m lvae_torch.report RUN [--compare RUN ...]``: write a run's report, one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from lvae_torch.cli import add_overrides, add_runs, begin, main, new_parser, path_option

PARSER = new_parser("report")
PARSER.add_argument("run", help="a run's name or folder, a bundle, or a checkpoint")
PARSER.add_argument("--compare", nargs="+", default=[], metavar="RUN", help="put these runs beside it")
WHERE = "file to write (default: report.html in the run's folder; comparison.html with --compare)"
PARSER.add_argument("--out", type=path_option, metavar="FILE", help=WHERE)
add_runs(PARSER)
add_overrides(PARSER)
if __name__ == "__main__":
    begin(PARSER)  # before PyTorch is imported

from lvae_torch.errors import DataError
from lvae_torch.files import make_folder
from lvae_torch.report.facts import Facts
from lvae_torch.report.page import Reported
from lvae_torch.report.writing import NAME, images_to_show, reported, write_report
from lvae_torch.runs.folder import RunFolder
from lvae_torch.trained.loading import find_run, open_alone


def command(argv: Sequence[str]) -> None:
    """Write the report that the arguments describe."""
    options = PARSER.parse_args(argv)
    found = [_reported(name, options.overrides, options.runs) for name in (options.run, *options.compare)]
    folder = RunFolder.of(found[0].facts.settings.run).path
    out = options.out or folder / ("comparison.html" if options.compare else NAME)
    make_folder(out.parent)
    write_report(out, found)
    print(f"{out}: written ({out.stat().st_size / 2**20:.1f} MiB). Open it in a browser; it needs nothing else.")


def _reported(name: str, overrides: Sequence[str], runs: Path) -> Reported:
    """What there is of a run; without a checkpoint that is its numbers."""
    settings, where = find_run(name, overrides, runs)
    try:
        run = open_alone(settings, where)
    except DataError as error:
        return Reported(Facts.of(settings, {}), (), f"There are none, for the model cannot be loaded: {error}")
    return reported(run, *images_to_show(run))


if __name__ == "__main__":
    main(command)
