"""What making a dump of pictures costs beside decoding and resizing them, and how much memory it takes.

    python -m benchmarks.preprocessing recipe [--images N]
    python -m benchmarks.preprocessing small|large [--images N] [--before CHECKOUT] [--pairs N]
    python -m benchmarks.preprocessing huge

``recipe`` makes ``celeba64`` of JPEGs of CelebA's size. ``small`` and ``large`` convert a folder of own pictures, of
128 x 96 and of 1024 x 1024 pixels, beside what another checkout takes for the same, in turns. ``huge`` takes single
pictures of 500 million pixels. Processor seconds are those of all processes, memory is that of the largest one.
"""

import argparse
import io
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

import data_scripts
from data_scripts.render import Render
from lvae_torch.distributed.place import n_cores

DISTINCT = 100
BOX = (15, 35, 163, 183)
ROW = "{:<34} {:>12} {:>14} {:>16}"
HERE = Path(__file__).resolve().parents[1]
FOLDER = 1000  # pictures in one
HUGE = 22_360  # the side of 500 million pixels


def smooth(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Pixels (H, W, 3) as smooth as a photograph's."""
    from PIL import Image

    coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def jpeg(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


# --- a recipe ---------------------------------------------------------------------------------------------------------


def upstream(folder: Path, n: int) -> None:
    """CelebA's archive and partition file with ``n`` pictures."""
    rng = np.random.default_rng(0)
    pictures = [jpeg(smooth(rng, 178, 218)) for _ in range(DISTINCT)]
    names = [f"{k + 1:06d}.jpg" for k in range(n)]
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for k, name in enumerate(names):
            archive.writestr(f"img_align_celeba/{name}", pictures[k % DISTINCT])
    (folder / "list_eval_partition.txt").write_text("".join(f"{name} 0\r\n" for name in names))


def processor_seconds() -> float:
    """Of this process and of those that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def report(what: str, n: int, before: float, elapsed: float, memory: str = "") -> None:
    spent = processor_seconds() - before
    print(ROW.format(what, f"{n / spent:,.0f}", f"{n / elapsed:,.0f}", memory), flush=True)


def rendered(files: list[bytes], n: int) -> int:
    """Decode, crop and resize ``n`` pictures that are in memory."""
    render = Render((64, 64), box=BOX)
    for k in range(n):
        render(files[k % len(files)])
    return n


def recipe(n: int) -> None:
    jobs = n_cores()
    print(ROW.format(f"CelebA-size JPEGs to 64x64, {jobs} cores", "per CPU-s", "per second", "peak memory"), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        upstream(folder, n)
        with zipfile.ZipFile(folder / "img_align_celeba.zip") as archive:
            files = [archive.read(picture) for picture in archive.namelist()[:DISTINCT]]
        alone(files, n, jobs)
        before, start = processor_seconds(), time.perf_counter()
        data_scripts.make("celeba64", folder / "dumps", source=name)
        most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        report("the whole recipe", n, before, time.perf_counter() - start, f"{most / 2**10:,.0f} MiB a process")
        alone(files, n, jobs)  # once more, for machines that are not always equally fast


def alone(files: list[bytes], n: int, jobs: int) -> None:
    before = processor_seconds()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(rendered, [files] * jobs, [1] * jobs))  # all are started
        start = time.perf_counter()
        sum(pool.map(rendered, [files] * jobs, [n // jobs] * jobs))
        elapsed = time.perf_counter() - start
    report("decode, crop and resize alone", n, before, elapsed)


# --- own pictures -----------------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """Of one command, with all processes that it started."""

    status: int
    processor: float
    memory: float
    """MiB, of the largest process."""


def conversion(checkout: Path, source: Path, dumps: Path, *options: str) -> Cost:
    """What ``data_scripts images`` costs in a checkout."""
    command = [sys.executable, "-m", "data_scripts", "--dumps", str(dumps), "images"]
    command += ["--source", str(source), "--name", "own", *options]
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=checkout, env=env, stdin=quiet, stdout=quiet, stderr=quiet)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(process.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**10)


def some_own(folder: Path, first: int, width: int, height: int) -> None:
    """A folder of pictures, no two of them equal."""
    rng = np.random.default_rng(first)
    inside = folder / f"{first // FOLDER:04d}"
    inside.mkdir()
    pixels = smooth(rng, 2 * width, 2 * height)
    for k in range(first, first + FOLDER):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        part = pixels[top : top + height, left : left + width].copy()
        part[0, 0] = k % 256, k // 256 % 256, k // 65536
        (inside / f"{k:06d}.jpg").write_bytes(jpeg(part))


def own(n: int, side: tuple[int, int], size: int, before: Path | None, pairs: int) -> None:
    """A folder of ``n`` pictures converted here and in the checkout ``before``, in turns."""
    checkouts = [HERE] if before is None else [before.resolve(), HERE]
    names = dict(zip(reversed(checkouts), ("here", "before"), strict=False))
    print(f"{n:,} JPEGs of {side[0]} x {side[1]} to {size} x {size}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pictures"
        folder.mkdir()
        with ProcessPoolExecutor(n_cores()) as pool:
            list(pool.map(some_own, *zip(*((folder, k, *side) for k in range(0, n, FOLDER)), strict=True)))
        found: dict[Path, list[Cost]] = {checkout: [] for checkout in checkouts}
        for checkout in turns(checkouts, pairs):
            cost = conversion(checkout, folder, Path(tempfile.mkdtemp(dir=name)), "--size", str(size))
            found[checkout].append(cost)
            print(
                f"  {names[checkout]:<7} exit {cost.status}, {cost.processor:8.1f} CPU s, {cost.memory:6.0f} MiB",
                flush=True,
            )
    spent = [[cost.processor for cost in found[checkout]] for checkout in checkouts]
    if before is not None:
        ratios = [after / old for old, after in zip(*spent, strict=True)]
        print(f"  here / before, median of {pairs} pairs: {statistics.median(ratios):.3f}")


def turns(checkouts: Sequence[Path], pairs: int) -> Iterator[Path]:
    for k in range(pairs):
        yield from checkouts if k % 2 == 0 else reversed(checkouts)


# --- one picture of 500 million pixels --------------------------------------------------------------------------------

HUGE_KINDS = {"grey.jpg": "L", "colour.jpg": "RGB", "grey.png": "L", "colour.png": "RGB"}


def write_huge(path: Path) -> None:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    mode = HUGE_KINDS[path.name]
    colour = 0 if mode == "L" else (0, 0, 0)
    picture = Image.new(mode, (HUGE, HUGE), colour)
    tile = Image.fromarray(smooth(np.random.default_rng(0), 2240, 2240)).convert(mode)
    for k in range(100):
        picture.paste(tile, (2236 * (k % 10), 2236 * (k // 10)))
    picture.save(path, quality=90) if path.suffix == ".jpg" else picture.save(path, compress_level=1)


def huge() -> None:
    """Each in a folder with a small one, refused and then taken."""
    with tempfile.TemporaryDirectory() as name:
        for kind in HUGE_KINDS:
            folder = Path(name) / kind.replace(".", "_")
            folder.mkdir()
            writing = multiprocessing.get_context("spawn").Process(target=write_huge, args=(folder / kind,))
            writing.start()
            writing.join()
            (folder / "small.jpg").write_bytes(jpeg(smooth(np.random.default_rng(1), 128, 96)))
            for options in ([], ["--max-pixels", "500000000"]):
                cost = conversion(
                    HERE, folder, Path(tempfile.mkdtemp(dir=name)), "--jobs", "1", "--valid", "0", *options
                )
                said = "taken" if cost.status == 0 else f"refused, exit {cost.status}"
                print(f"{kind:<11} {said:<16} {cost.processor:6.1f} CPU s {cost.memory:6.0f} MiB", flush=True)
            (folder / kind).unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("recipe", "small", "large", "huge"))
    parser.add_argument("--images", type=int, help="how many (default: 200,000, of the large ones 2,000)")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="what to compare with")
    parser.add_argument("--pairs", type=int, default=3)
    asked = parser.parse_args()
    n = asked.images or (2000 if asked.what == "large" else 200_000)
    match asked.what:
        case "recipe":
            recipe(n)
        case "small":
            own(n, (128, 96), 64, asked.before, asked.pairs)
        case "large":
            own(n, (1024, 1024), 256, asked.before, asked.pairs)
        case "huge":
            huge()


if __name__ == "__main__":
    main()
