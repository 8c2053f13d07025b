"""The table of checks, and how one is carried out: in a process of its own, which ends when its time is over."""

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from benchmarks.gpu import exactness, runs, speed
from benchmarks.gpu.bench import Bench, Row


@dataclass(frozen=True)
class Check:
    """Rows, and the seconds that they may take."""

    run: Callable[[Bench], Iterator[Row]]
    seconds: float
    needs_card: bool = False


CHECKS: dict[str, Check] = {
    "card": Check(speed.the_card, 30),
    "families": Check(exactness.families_agree, 60),
    "waits": Check(exactness.nothing_waits, 30, needs_card=True),
    "steps": Check(speed.times_of_steps, 150),
    "replays": Check(exactness.replays_are_steps, 60, needs_card=True),
    "memory": Check(speed.memory_of_steps, 60, needs_card=True),
    "kernels": Check(speed.kinds_of_kernels, 40),
    "resume": Check(runs.killed_and_resumed, 90),
    "training": Check(runs.a_minute_of_training, 90),
    "loader": Check(runs.waits_for_images, 30),
    "exchange": Check(runs.one_rank_exchanges, 30),
    "compile": Check(speed.times_of_compiled_steps, 180, needs_card=True),
}


@dataclass
class Result:
    """What a check gave, and how it ended: done, time over, or the line of its error."""

    check: str
    rows: list[Row] = field(default_factory=list)
    ended: str = "done"
    seconds: float = 0.0

    @property
    def is_well(self) -> bool:
        return self.ended in ("done", "time over") and all(row.passed for row in self.rows)


def carried_out(name: str, check: Check, bench: Bench, seconds: float) -> Result:
    """A check in a process of its own, which ends, with all that it started, when its time is over."""
    here, there = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("forkserver")  # not fork: CUDA would not work in the child
    context.set_forkserver_preload(["benchmarks.gpu.checks"])
    process = context.Process(target=in_child, args=(check.run, bench, there), name=name)
    start, result = time.monotonic(), Result(name)
    process.start()
    there.close()
    result.ended = received(here, start + seconds, result.rows)
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    result.seconds = time.monotonic() - start
    return result


def received(pipe: "Connection[object, object]", until: float, rows: list[Row]) -> str:
    """Take the rows that come until then; how the check ended."""
    while pipe.poll(max(0.0, until - time.monotonic())):
        try:
            got = pipe.recv()
        except EOFError:
            return "its process died"
        if not isinstance(got, Row):
            return str(got)
        rows.append(got)
    return "time over"


def in_child(run: Callable[[Bench], Iterator[Row]], bench: Bench, pipe: "Connection[object, object]") -> None:
    """Send each row as it comes, and last how the check ended."""
    os.setpgid(0, 0)  # what it starts ends with it
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        for row in run(bench):
            pipe.send(row)
        pipe.send("done")
    except Exception as reason:
        traceback.print_exc()
        pipe.send(f"{type(reason).__name__}: {str(reason).splitlines()[0] if str(reason) else ''}")
