"""``kill -9`` while a trained run is used: the same command goes on, and nothing half done reads as whole."""

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import Figure, Place, rounds

from lvae_torch.files import read_json
from lvae_torch.synthesis.parts import read_part

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MODES = ["likelihood", "div_stats", "encoding", "reconstruction", "generation"]
OPTIONS = {"synthesis__batch_size": 2, "synthesis__shard_size": 2, "synthesis__iw_samples": 30}


@pytest.fixture
def trained(place: Place) -> Place:
    place.finish("small", cfg="small")
    return place


def results(folder: Path) -> dict[str, Any]:
    """Every result of a mode; each file must be readable as a whole."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json":
            found[path.name] = read_json(path)
        elif path.suffix in (".npz", ".safetensors"):
            found[path.name] = {name: array.tolist() for name, array in read_part(path).items()}
        elif path.suffix == ".png":
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), path
    return found


def start(place: Place, mode: str) -> Any:
    return place.start("small", "small", command="synthesize", modes=[mode], **OPTIONS)


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_random_moments(trained: Place, figure: Figure, mode: str) -> None:
    place, generator, n = trained, random.Random(0), rounds(10)
    out = place.run("small").synthesis(mode)
    began = time.monotonic()
    assert start(place, mode).wait() == 0
    longest, whole = time.monotonic() - began, results(out)
    shutil.rmtree(out)
    partial = 0
    for _ in range(n):
        child = start(place, mode)
        time.sleep(generator.uniform(0, 0.8 * longest))
        killed = child.kill() == -signal.SIGKILL
        found = results(out) if out.exists() else {}
        partial += killed and bool(found) and "metrics.json" not in found
        if "metrics.json" in found:
            assert found == whole, "what says that it is done is not"
            shutil.rmtree(out)
    again = start(place, mode)
    assert again.wait() == 0, again.said
    assert results(out) == whole
    assert not list(out.rglob("*.tmp"))
    figure(
        f"kill -9 during {mode}", f"{n} kills ({partial} with some parts done), results equal to the undisturbed ones"
    )


def test_a_killed_evaluation_is_repeated(place: Place, figure: Figure) -> None:
    """The importance-weighted bound at the end of a training, killed in the middle."""
    slow = {"train__steps": 4, "val__iw_samples": 3000, "val__batch_size": 1}
    place.finish("whole", **slow)
    n, ended = rounds(5), 0
    for k in range(n):
        name = f"parts{k}"
        child = place.start(name, **slow)
        place.wait_for_lines(name, child, 5)  # of four steps, and of the evaluation after the third
        time.sleep(0.01 * k)
        ended += child.kill() == 0
        place.finish(name, **slow)
        place.assert_same("whole", name)
    figure("kill -9 during evaluation", f"{n - ended} kills, equal to the bit")


def test_numpy_reads_results(trained: Place) -> None:
    """As anybody would, without this program."""
    assert start(trained, "likelihood").wait() == 0
    part = trained.run("small").synthesis("likelihood") / "part_00000.npz"
    with np.load(part, allow_pickle=False) as arrays:
        assert np.isfinite(arrays["log_p"]).all()
