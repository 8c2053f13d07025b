"""``kill -9`` and failing file operations: whatever the moment, the same command goes on, and nothing is lost."""

import errno
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from faults import Figure, Place, launch, rounds, seconds_of_a_start

pytestmark = pytest.mark.slow

ENDLESS = 10**6


@pytest.mark.timeout(1800)
def test_killed_at_random_moments_of_training_and_saving(place: Place, figure: Figure) -> None:
    """Each start goes on from what the kill before it left; at the end the run is the undisturbed one."""
    generator, n = random.Random(0), rounds(100)
    longest = 2 * seconds_of_a_start(place)
    newest = torn = progressed = 0
    for _ in range(n):
        child = place.start("parts", train__steps=ENDLESS)
        time.sleep(generator.uniform(0, longest))
        assert child.kill() == -signal.SIGKILL, child.said
        torn += any(place.run("parts").path.rglob("*.tmp"))
        step = place.newest_step("parts")
        assert step >= newest, "a checkpoint that was there is lost"
        progressed += step > newest
        newest = step
    assert progressed > n // 10, "the kills came too early to mean anything"
    steps = newest + 7
    for name in ("parts", "whole"):
        place.finish(name, seconds=1500, train__steps=steps)  # as long as all that was done between the kills
    place.assert_same("whole", "parts")
    assert not any(place.run("parts").path.rglob("*.tmp*"))
    figure(
        "kill -9 at random moments of training and saving",
        f"{n} kills ({torn} in the middle of a file), 0 checkpoints lost or half read, "
        f"{steps} steps equal to the undisturbed run's to the bit",
    )


@pytest.mark.timeout(1800)
def test_whole_commands_killed(place: Place, figure: Figure) -> None:
    """From the start of the interpreter on, as a user's kill meets them."""
    generator, n = random.Random(1), rounds(20)
    began = time.monotonic()
    assert launch(place, "timed", [], train__steps=6).wait() == 0
    longest, newest = 1.5 * (time.monotonic() - began), 0
    for _ in range(n):
        command = launch(place, "parts", [], train__steps=ENDLESS)
        time.sleep(generator.uniform(0, longest))
        command.send(signal.SIGKILL)
        command.wait()
        step = place.newest_step("parts")
        assert step >= newest, "a checkpoint that was there is lost"
        newest = step
    assert newest > 0, "the kills came too early to mean anything"
    for name in ("parts", "whole"):
        place.finish(name, train__steps=newest + 7)
    place.assert_same("whole", "parts")
    figure(
        "kill -9 of whole commands", f"{n} kills, 0 checkpoints lost, then equal to the undisturbed run's to the bit"
    )


@pytest.mark.timeout(1800)
def test_killed_before_every_file_operation(place: Place, figure: Figure) -> None:
    """All that a start and two checkpoints write: lock, settings, status, logs, checkpoints."""
    for name, steps in (("begun", 4), ("whole", 4), ("whole", 6)):
        place.finish(name, train__steps=steps)
    n, ended = 0, 0
    while ended == 0:
        n += 1
        name = f"killed{n}"
        shutil.copytree(place.run("begun").path, place.run(name).path)
        child = place.start(name, train__steps=6, patches=[("die_at", str(place.run(name).path), n)])
        ended = {9: 0}.get(child.wait(), 1)
        assert ended == 0 or "finished" in child.said, child.said
        assert place.newest_step(name) >= 4
        place.finish(name, train__steps=6)
        place.assert_same("whole", name)
        shutil.rmtree(place.run(name).path)
    assert n > 50, "too few operations were seen"
    figure(
        "kill before every file operation of a start and a save", f"{n - 1} operations, 0 lost, all equal to the bit"
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("number", "lasting"), [(errno.EIO, False), (errno.ENOSPC, True)], ids=["EIO", "ENOSPC"])
def test_every_file_operation_fails(place: Place, figure: Figure, number: int, lasting: bool) -> None:
    """An error of the disk ends the command with one message, or does no harm; the next start goes on."""
    for name, steps in (("begun", 4), ("whole", 4), ("whole", 6)):
        place.finish(name, train__steps=steps)
    n, refused, status = 0, 0, -1
    wrong: list[str] = []
    while True:
        n += 1
        name = f"failed{n}"
        shutil.copytree(place.run("begun").path, place.run(name).path)
        path = str(place.run(name).path)
        child = place.start(name, train__steps=6, patches=[("fail_at", path, n, number, lasting)])
        status = child.wait()
        hit, refused = "injected" in child.said, refused + (status == 3)
        if status not in (0, 3) or "Traceback" in child.said:
            wrong.append(f"operation {n}: status {status}: {child.said[-1500:]}")
        assert place.newest_step(name) >= 4
        place.finish(name, train__steps=6)
        place.assert_same("whole", name)
        shutil.rmtree(place.run(name).path)
        if not hit:
            break
    assert not wrong, "\n".join(wrong)
    assert refused > 20, "too few operations were seen"
    figure(
        f"{errno.errorcode[number]} at every writing file operation{', and from then on' if lasting else ''}",
        f"{refused} operations refused with one message, 0 tracebacks, 0 lost, all equal to the bit",
    )


def test_names_follow_contents_to_the_disk(place: Place, figure: Figure, tmp_path: Path) -> None:
    """A power cut keeps what was synced and no more: a file is synced before its rename, its folder after it.

    But for the report, which can be made again, and ``status.json`` while the run lives, of which nothing is taken up.
    """
    log, folder = tmp_path / "operations", place.run("small").path
    child = place.start("small", train__steps=6, patches=[("record", str(folder), str(log))])
    assert child.wait() == 0, child.said
    operations = [line.split("\t") for line in log.read_text().splitlines()]
    renames = [(i, *path.split(" -> ")) for i, (operation, path) in enumerate(operations) if operation == "rename"]
    status, report = str(folder / "status.json"), str(folder / "report.html")
    last_status = max(i for i, _, final in renames if final == status)
    renames = [rename for rename in renames if rename[2] not in (status, report) or rename[0] == last_status]
    assert len(renames) > 10
    for i, temporary, final in renames:
        if temporary.endswith(".again.pt"):  # whole already, and known by either name
            continue
        before = [operation for operation, path in operations[:i] if path == temporary]
        assert before[-1:] == ["fsync"], f"{temporary} was not synced before it became {final}"
        assert ["fsync", str(Path(final).parent)] in operations[i + 1 :], f"the folder of {final} was not synced"
    manifests = [(i, final) for i, _, final in renames if final.endswith(".json") and "step_" in final]
    for i, manifest in manifests:
        state = manifest.replace(".json", ".pt")
        assert any(j < i and state == final for j, _, final in renames), f"{manifest} came before {state}"
    figure("order of syncs and renames (power cut)", f"{len(renames)} renames, 0 out of order")
