"""Damaged files: truncated, bit-flipped, zeroed, swapped. Each is refused by name, or what it says is still true."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from faults import DAMAGES, Figure, Place, rounds

from lvae_torch.data.dump import Dump, Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import UserError
from lvae_torch.hparams import load
from lvae_torch.reporting.jsonl import JsonlReporter
from lvae_torch.runs.checkpoints import CheckpointStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def assert_noticed(path: Path, read: Callable[[], Any], truth: Any) -> int:
    """How many of the damages of a file were refused by its name; the others must have changed nothing that is read."""
    rng, good, refused = random.Random(0), path.read_bytes(), 0
    for _ in range(rounds(100)):
        for damage in DAMAGES:
            damage(path, rng)
            try:
                found = read()
            except UserError as error:
                assert path.name in str(error) or path.stem in str(error), error
                refused += 1
            else:
                assert found == truth, f"{damage.__name__} of {path.name} went unnoticed"
            path.write_bytes(good)
    return refused


def told(name: str, refused: int) -> tuple[str, str]:
    n = rounds(100) * len(DAMAGES)
    return (
        f"flipped, truncated, zeroed {name}",
        f"{refused} of {n} refused by name, {n - refused} without effect, 0 unnoticed",
    )


@pytest.mark.parametrize("suffix", [".pt", ".json"])
def test_checkpoints(place: Place, figure: Figure, suffix: str) -> None:
    """Read without setting aside, so that each damage is met afresh."""
    place.finish("small", train__steps=6)
    store = CheckpointStore(place.run("small").checkpoints)
    path = store.folder / f"step_00000006{suffix}"

    def read() -> Any:
        state = store.load("last")
        return state["state"], {name: tensor.tolist() for name, tensor in state["model"].items()}

    figure(*told(f"checkpoint ({suffix})", assert_noticed(path, read, read())))


def test_a_run_goes_on_from_the_checkpoint_before(place: Place, figure: Figure) -> None:
    place.finish("begun", train__steps=6)
    for steps in (6, 12):
        place.finish("whole", train__steps=steps)
    rng, n = random.Random(1), 0
    for damage in DAMAGES:
        for suffix in (".pt", ".json"):
            shutil.copytree(place.run("begun").path, place.run("small").path)
            damage(place.run("small").checkpoints / f"step_00000006{suffix}", rng)
            child = place.start("small", train__steps=12)
            assert child.wait() == 0 and "step_00000006" in child.said, child.said
            place.assert_same("whole", "small")
            shutil.rmtree(place.run("small").path)
            child.log.unlink()
            n += 1
    figure("start with a damaged newest checkpoint", f"{n} of {n} named it, used the one before, equal to the bit")


@pytest.mark.parametrize("file", ["dataset.json", "train_00000.npy", "train_00000_labels.npy", "train_00000_names.txt"])
def test_dumps(tmp_path: Path, figure: Figure, file: str) -> None:
    """As the start of a training, and ``--verify``, compare them."""
    rng = np.random.default_rng(0)
    with DumpWriter(tmp_path, "small", Layout((1, 8, 8), 256), {"source": "made by a test"}) as writer:
        images = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
        writer.add("train", images, labels=np.arange(40) % 10, names=[f"{i}.png" for i in range(40)])

    def read() -> Any:
        dump = Dump.open(tmp_path, "small")
        dump.verify()
        labels, names = dump.labels("train"), dump.names("train")
        assert labels is not None
        images = dump.split("train").gather(np.arange(40)).tolist()
        return images, labels.tolist(), names, dump.layout, dump.content_hash, dump.provenance

    figure(*told(f"{file} of a dump", assert_noticed(tmp_path / "small" / file, read, read())))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_training_on_a_damaged_shard_is_refused(place: Place, damage: Callable[..., None], figure: Figure) -> None:
    path = place.folder / "dumps" / "small" / "train_00000.npy"
    damage(path, random.Random(3))
    child = place.start("small")
    assert child.wait() == 3 and "train_00000.npy" in child.said and "Traceback" not in child.said, child.said
    figure(f"training on a shard after {damage.__name__}", "refused by name")


def test_shards_swapped(tmp_path: Path) -> None:
    small.write_dump(tmp_path)
    first, second = (tmp_path / "small" / f"train_{i:05d}.npy" for i in range(2))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    with pytest.raises(UserError, match=r"train_00000\.npy: its bytes differ"):
        Dump.open(tmp_path, "small").verify()


def test_the_kept_settings(place: Place, figure: Figure) -> None:
    place.finish("small", train__steps=2)
    path = place.run("small").hparams_cfg
    figure(*told("hparams.cfg of a run", assert_noticed(path, lambda: load(path), load(path))))


def test_the_history(place: Place, figure: Figure) -> None:
    """A torn end is dropped, as a kill leaves one; whatever else changed is refused."""
    place.finish("begun", train__steps=8)
    rng, outcomes = random.Random(2), {"refused": 0, "torn lines dropped": 0}
    path = place.run("begun").metrics_jsonl
    good = path.read_bytes()
    for _ in range(rounds(100)):
        for damage in DAMAGES:
            damage(path, rng)
            try:
                JsonlReporter(path, 8)
            except UserError as error:
                assert path.name in str(error)
                outcomes["refused"] += 1
            else:
                assert good.startswith(path.read_bytes()), f"{damage.__name__} went unnoticed"
                outcomes["torn lines dropped"] += 1
            path.write_bytes(good)
    figure("flipped, truncated, zeroed metrics.jsonl", ", ".join(f"{n} {what}" for what, n in outcomes.items()))
