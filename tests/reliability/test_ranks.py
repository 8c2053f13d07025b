"""Several processes: one killed, their number changed, two runs under one name."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from faults import Figure, Place, n_lines, rounds, torchrun
from running import assert_same_bits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS, BATCH, IMAGES = 60, 8, 36


def workers(pid: int) -> dict[int, int]:
    """Rank -> process of the trainers below ``pid``."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            environment = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        ranks = [entry[5:] for entry in environment if entry.startswith(b"RANK=")]
        if parent == pid and ranks:
            found[int(ranks[0])] = int(path.name)
    return found


def test_a_killed_worker_is_replaced_by_torchrun(place: Place, figure: Figure) -> None:
    """``--max-restarts``: all restart from the last checkpoint, and the end is that of the undisturbed run."""
    n = rounds(5)
    overrides = {"train__steps": STEPS * n, "train__checkpoint_every": 5}
    launched = torchrun(place, "parts", f"--max-restarts={n}", **overrides)
    process = launched.process
    path, seen = place.run("parts").metrics_jsonl, 0
    for k in range(n):
        deadline = time.monotonic() + 200
        while n_lines(path) < seen + 10:
            assert process.poll() is None and time.monotonic() < deadline, launched.said
            time.sleep(0.01)
        victim = workers(process.pid)[1 - k % 2]
        os.kill(victim, signal.SIGKILL)
        seen = n_lines(path)
        while len(workers(process.pid)) == 2 and victim in workers(process.pid).values():
            time.sleep(0.05)
    assert process.wait(300) == 0, launched.said
    place.finish("whole", world=2, **overrides)
    place.assert_same("whole", "parts")
    figure("one worker of 2 killed, torchrun --max-restarts", f"{n} kills (either rank), equal to the bit")


def test_another_number_of_ranks_continues_the_same_run(place: Place, figure: Figure) -> None:
    """1, 2 and 1 ranks in turn: every image of an epoch once, the order of the undisturbed run."""
    seen: dict[int, list[int]] = {}
    first = 0
    for part, (world, steps) in enumerate(((1, 3), (2, 6), (1, 8))):
        log = place.folder / f"batches{part}"
        children = place.start_ranks(
            "parts", world, patches=[("tell_batches", str(log))], train__steps=steps, val__every=0
        )
        assert [child.wait() for child in children] == [0] * world, [child.said for child in children]
        for line in log.read_text().splitlines():
            step, _, indices = line.split("\t")
            if first <= int(step) < steps:
                seen.setdefault(int(step), []).extend(map(int, indices.split()))
        first = steps
    per_epoch = IMAGES // BATCH
    for epoch in range(2):
        images = [image for step in range(epoch * per_epoch, (epoch + 1) * per_epoch) for image in seen[step]]
        assert len(images) == len(set(images)) == per_epoch * BATCH
    log = place.folder / "batches"
    child = place.start("whole", patches=[("tell_batches", str(log))], train__steps=8, val__every=0)
    assert child.wait() == 0, child.said
    whole = {int(line.split("\t")[0]): line.split("\t")[2] for line in log.read_text().splitlines()}
    assert all(sorted(seen[step]) == sorted(map(int, whole[step].split())) for step in range(8))
    figure("1, 2, 1 ranks", "8 steps, 2 epochs: every image once an epoch, each batch that of the undisturbed run")


def test_a_checkpoint_of_two_ranks_continues_on_one_to_the_bit_of_itself(place: Place) -> None:
    """Twice from the same checkpoint with another number of ranks: the same run."""
    place.finish("one", world=2, train__steps=4)
    shutil.copytree(place.run("one").path, place.run("other").path)
    for name in ("one", "other"):
        place.finish(name, world=1, train__steps=8)
    assert_same_bits(place.checkpoint("one"), place.checkpoint("other"))


def test_two_runs_with_one_name(place: Place, figure: Figure) -> None:
    """Whoever comes second is refused and told who holds the run; the first one is not disturbed."""
    generator, n = random.Random(0), rounds(20)
    for k in range(n):
        name = f"small{k}"
        children = [place.start(name, train__steps=60, train__checkpoint_every=10)]
        time.sleep(generator.choice((0.0, 0.02)))
        children.append(place.start(name, train__steps=60, train__checkpoint_every=10))
        statuses = sorted(child.wait() for child in children)
        said = children[0].said
        assert statuses == [0, 2] and "in use by process" in said and "Traceback" not in said, said
        assert place.newest_step(name) == 60
    place.finish("whole", train__steps=60, train__checkpoint_every=10)
    place.assert_same("whole", f"small{n - 1}")
    figure("two runs with one name", f"{n} races: one ran, one was refused, each time")
