"""What making a dump of pictures costs beside decoding and resizing them, and how much memory it takes.

python -m benchmarks.preprocessing [--images N]

Pictures are JPEGs of CelebA's size; the dump is that of ``celeba64``. Processor seconds are those of all processes.
"""

import argparse
import io
import multiprocessing
import resource
import tempfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import data_scripts
from data_scripts.render import Render
from lvae_torch.distributed.place import n_cores

DISTINCT = 100
BOX = (15, 35, 163, 183)
ROW = "{:<34} {:>12} {:>14} {:>16}"


def upstream(folder: Path, n: int) -> None:
    """CelebA's archive and partition file with ``n`` pictures, smooth as photographs are."""
    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(DISTINCT):
        coarse = Image.fromarray(rng.integers(0, 256, (28, 23, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((178, 218), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        pictures.append(buffer.getvalue())
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    n, jobs = parser.parse_args().images, n_cores()
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


if __name__ == "__main__":
    main()
