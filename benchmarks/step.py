"""A whole training step of a cfg, alone or in turns with another program's, in processor time.

    python -m benchmarks.step [CFG] [--batch-size 64] [--precision float32] [--threads 1] [--pairs 7] [--against PATH]

PATH is another checkout of this program (a folder that has ``lvae_torch``), or an adapter: a Python file whose
``make_step(settings)`` gives a function that trains another program's model on raw images, uint8 (B, H, W, C). Both
sides are processes of their own, pinned to the same cores, that take single steps in turns (A B, B A, A B, ...); so
what else the machine does meets both. Memory is the largest resident set, less what was held before the model was
made. PATH may be this checkout itself: what A against A differs by is noise.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SIDE = Path(__file__).with_name("_one_step.py")


@dataclass
class Side:
    """A process that takes steps, and what they cost."""

    name: str
    process: "subprocess.Popen[str]"
    seconds: list[float] = field(default_factory=list)
    mib: float = 0.0

    def hear(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self.process.wait()}.")
        answer: dict[str, float] = json.loads(line)
        return answer

    def step(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        answer = self.hear()
        self.seconds.append(answer["seconds"])
        self.mib = answer["mib"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path, nargs="?", default=Path("egs/spatial_lvae/static_mnist_3.cfg"))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--against-precision", choices=["float32", "bfloat16"], help="of PATH; by default the same")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--against", type=Path, metavar="PATH")
    options = parser.parse_args()
    with ExitStack() as ends:
        sides = [start("ours", options, HERE, options.precision, ends)]
        if options.against is not None:
            precision = options.against_precision or options.precision
            sides.append(start(options.against.stem, options, options.against.resolve(), precision, ends))
        for side in sides:
            side.hear()
        for k in range(options.pairs):
            for side in sides if k % 2 == 0 else reversed(sides):
                side.step()
    report(options, sides)


def start(name: str, options: argparse.Namespace, path: Path, precision: str, ends: ExitStack) -> Side:
    command = [sys.executable, str(SIDE), str(options.cfg.resolve())]
    command += [str(options.batch_size), precision, str(options.threads)]
    checkout = path
    if path.suffix == ".py":
        command += ["--adapter", str(path)]
        checkout = HERE
    cores = sorted(os.sched_getaffinity(0))[: options.threads]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(options.threads)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    ends.callback(process.wait)
    ends.callback(process.kill)
    return Side(name, process)


def report(options: argparse.Namespace, sides: list[Side]) -> None:
    print(f"{options.cfg.stem}, batch {options.batch_size}, {options.threads} thread(s), {options.pairs} pairs")
    for side in sides:
        seconds = statistics.median(side.seconds)
        rate = options.batch_size / seconds
        print(f"  {side.name:<14} {seconds:8.3f} CPU-s a step {rate:9.2f} images/CPU-s {side.mib:8.0f} MiB")
    if len(sides) == 2:
        ours, theirs = sides
        ratios = sorted(b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True))
        ratio = statistics.median(theirs.seconds) / statistics.median(ours.seconds)
        spread = f"pairs: {ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"  ours is {ratio:.3f} times as fast ({spread}), with {ours.mib / theirs.mib:.2f} of the memory")


if __name__ == "__main__":
    main()
