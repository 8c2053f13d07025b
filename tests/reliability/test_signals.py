"""SIGTERM, SIGUSR1 and SIGINT at random moments: all ranks leave together, with everything saved."""

import random
import signal
import time

import pytest
from faults import Figure, Place, rounds, seconds_of_a_start, torchrun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
STEPS = 40
BUSY = {  # where a run spends its time, so that this is where the signal comes
    "step": {"train__checkpoint_every": 10**6, "val__every": 0, "train__batch_size": 32},
    "evaluation": {"val__every": 1, "val__batch_size": 1, "val__iw_samples": 50},
    "save": {"train__checkpoint_every": 1, "val__every": 0},
}


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("world", [1, 2])
def test_signals_lose_nothing(place: Place, figure: Figure, number: signal.Signals, world: int) -> None:
    """During steps, evaluations and saves in turn; of two ranks, sometimes only one is told."""
    generator, n, preempted = random.Random(world), rounds(9), 0
    longest = 2 * seconds_of_a_start(place) * world
    for k in range(n):
        where = list(BUSY)[k % len(BUSY)]
        name, overrides = f"parts{k}", {"train__steps": STEPS, **BUSY[where]}
        patches = [("slow_saves", 0.05)] if where == "save" else []
        children = place.start_ranks(name, world, patches=patches, **overrides)
        place.wait_for_lines(name, children[0])
        time.sleep(generator.uniform(0, longest / 4))
        for child in children if k % 2 else children[-1:]:
            child.send(number)
        statuses = {child.wait() for child in children}
        assert len(statuses) == 1 and statuses <= {0, 75}, [child.said for child in children]
        status = place.status(name)
        assert status["state"] == ("finished" if statuses == {0} else "preempted"), status
        assert status["step"] == place.newest_step(name), "what was trained is not what was saved"
        preempted += statuses == {75}
        place.finish(name, world=world, **overrides)
        place.finish(f"whole{k}", world=world, **overrides)
        place.assert_same(f"whole{k}", name)
    assert preempted > n // 2, "the signals came too late to mean anything"
    ranks = f"{world} rank{'s' if world > 1 else ''}"
    figure(
        f"{number.name} during steps, evaluations, saves, {ranks}",
        f"{preempted} stops of {n} saved and equal to the bit",
    )


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_torchrun_hands_signals_on(place: Place, figure: Figure, number: signal.Signals) -> None:
    """To torchrun, as schedulers send them; it has to be told of SIGUSR1."""
    n, overrides = rounds(3), {"train__steps": STEPS, **BUSY["step"]}
    for k in range(n):
        process = torchrun(place, f"parts{k}", "--signals-to-handle=SIGTERM,SIGINT,SIGUSR1", **overrides)
        place.wait_for_lines(f"parts{k}", process, 1 + 4 * k)
        process.send(number)
        assert process.wait() == 1, process.said  # whatever its processes did
        assert place.status(f"parts{k}")["state"] == "preempted", process.said
        place.finish(f"parts{k}", world=2, **overrides)
    place.finish("whole", world=2, **overrides)
    for k in range(n):
        place.assert_same("whole", f"parts{k}")
    figure(f"{number.name} to torchrun, 2 ranks", f"{n} stops of {n} saved and equal to the bit")


def test_no_rank_leaves_before_the_save(place: Place, figure: Figure) -> None:
    """torchrun kills the others of a node 30 s after the first has ended, whatever it was told."""
    children = place.start_ranks("small", 2, patches=[("slow_saves", 3.0)], train__steps=10**6, **BUSY["step"])
    place.wait_for_lines("small", children[0])
    children[1].send(signal.SIGTERM)
    assert children[1].wait() == 75, children[1].said
    assert place.newest_step("small") > 0, "it left rank 0 alone with the save"
    assert children[0].wait() == 75, children[0].said
    figure("a save of 3 s at a stop of 2 ranks", "the other rank left after it")


def test_a_second_interrupt_stops_at_once_and_loses_only_steps(place: Place, figure: Figure) -> None:
    child = place.start("small", train__steps=10**6, patches=[("slow_saves", 1.0)])
    place.wait_for_lines("small", child, 20)
    for _ in range(2):
        child.send(signal.SIGINT)
        time.sleep(0.05)
    assert child.wait() == 75, child.said
    steps = place.newest_step("small")
    for name in ("small", "whole"):
        place.finish(name, train__steps=steps + 5)
    place.assert_same("whole", "small")
    figure("a second SIGINT", "ends at once, equal to the bit afterwards")


@pytest.mark.parametrize("delay", [0.0, 0.03])
def test_a_signal_before_training_begins(place: Place, delay: float) -> None:
    """While it assembles itself: nothing is saved, nothing is broken."""
    child = place.start("small", train__steps=6)
    time.sleep(delay)
    child.send(signal.SIGTERM)
    assert child.wait() in (0, 75, -signal.SIGTERM), child.said
    place.finish("small", train__steps=6)
    place.finish("whole", train__steps=6)
    place.assert_same("whole", "small")
