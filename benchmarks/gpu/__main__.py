"""Ten minutes with a card: what it computes, how fast, and whether runs survive on it.

    python -m benchmarks.gpu [--json FILE] [--seconds 600] [--only CHECK ...] [--device cuda|cpu] [--quick]

Checks come in the order of their worth, each in a process of its own with a time of its own, so that one that hangs or
fails ends alone; the JSON file is whole after each. Nothing is downloaded. ``--quick`` shows only that the checks run,
however long they take. The exit status is 1 where something is not as it must be.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.gpu.bench import Bench, Number
from benchmarks.gpu.checks import CHECKS, Result, carried_out

PINS = Path(__file__).resolve().parents[2] / "build" / "requirements.txt"


def main() -> None:
    options = arguments().parse_args()
    bench = Bench(torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu"), options.quick)
    end, results = time.monotonic() + options.seconds, []
    print(f"torch {torch.__version__}{'' if is_pinned() else f', not the pinned {pinned()}'}; {bench.device}")
    for name in options.only or CHECKS:
        check = CHECKS[name]
        if check.needs_card and not bench.is_card:
            print(f"{name}: needs a card")
            continue
        left = end - time.monotonic()
        result = carried_out(name, check, bench, left if options.quick else min(check.seconds, left))
        print("\n".join(told(result)), flush=True)
        results.append(result)
        if options.json:
            content = {"torch": torch.__version__, "pinned": pinned(), "results": list(map(asdict, results))}
            options.json.write_text(json.dumps(content, indent=2), encoding="utf-8")
    sys.exit(not all(result.is_well for result in results))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true")
    return parser


def pinned() -> str:
    """The version of PyTorch that the program is tested with."""
    found = re.search(r"^torch==([^\s;]+)", PINS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, PINS
    return found[1]


def is_pinned() -> bool:
    return torch.__version__.partition("+")[0] == pinned()


def told(result: Result) -> Iterator[str]:
    """The table of a check."""
    yield f"{result.check}: {result.ended}, {result.seconds:.1f} s"
    width = max((len(row.what) for row in result.rows), default=0)
    for row in result.rows:
        numbers = "  ".join(f"{name} {shown(number)}" for name, number in row.numbers.items())
        yield f"  {row.what:<{width}}  {numbers}{'' if row.passed else '  NOT AS IT MUST BE'}"


def shown(number: Number) -> str:
    return f"{number:,.4g}" if isinstance(number, float) else str(number)


if __name__ == "__main__":
    main()
