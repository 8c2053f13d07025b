"""``python -m lvae_torch.doctor``: what this machine has, held against what training on it needs."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from lvae_torch.cli import begin, main, new_parser, path_option

PARSER = new_parser("doctor")
PARSER.add_argument("--json", action="store_true", help="print a list of objects instead of lines")
PARSER.add_argument(
    "--runs", type=path_option, default="runs", metavar="DIR", help="the folder of runs (default: %(default)s)"
)
PARSER.add_argument(
    "--dumps",
    type=path_option,
    default="dataset_dumps",
    metavar="DIR",
    help="the folder of dumps (default: %(default)s)",
)
if __name__ == "__main__":
    begin(PARSER)  # before PyTorch is imported

from lvae_torch.doctor.cards import check_cards
from lvae_torch.doctor.finding import Finding
from lvae_torch.doctor.machine import check_machine
from lvae_torch.doctor.storage import check_folder
from lvae_torch.errors import CfgError


def command(argv: Sequence[str]) -> None:
    """Print what was found.

    Exit status 0 if nothing is a fault, else that of a wrong setting: something outside the program must change.
    """
    arguments = PARSER.parse_args(argv)
    findings = list(examine(arguments.runs, arguments.dumps))
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print("\n".join(lines(findings)))
    if any(finding.level == "fault" for finding in findings):
        sys.exit(CfgError.exit_status)


def examine(runs: Path, dumps: Path) -> Iterator[Finding]:
    """Look at everything."""
    yield from check_machine(runs)
    yield from check_cards()
    yield from check_folder("runs", runs, "[run] runs")
    yield from check_folder("dumps", dumps, "[data] dumps")


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """A line a finding, its remedy below it, and a last line that counts."""
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        yield f"{finding.level:<8} {finding.subject:<{width}}  {finding.told}"
        if finding.remedy:
            yield f"{'':<8} {'':<{width}}  -> {finding.remedy}"
    counts = {level: sum(finding.level == level for finding in findings) for level in ("fault", "warning")}
    told = [f"{n} {level}{'s' if n > 1 else ''}" for level, n in counts.items() if n]
    yield f"{len(findings)} things looked at: " + (", ".join(told) if told else "all is fine")


if __name__ == "__main__":
    main(command)
