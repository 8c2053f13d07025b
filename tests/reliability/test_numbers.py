"""NaN, infinity and spikes: skipped, counted, logged; never kept."""

import json
import math
from typing import Any

import pytest
import torch
from faults import Figure, Place, history

from lvae_torch.files import sha256_of
from lvae_torch.runs.checkpoints import CheckpointStore

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=["NaN", "Inf"])
def test_bad_batches_are_skipped_and_counted(place: Place, figure: Figure, value: float) -> None:
    bad = [3, 4, 9]
    child = place.start("small", "small", patches=[("bad_batches", bad, value)], train__steps=12)
    assert child.wait() == 0 and "Traceback" not in child.said, child.said
    logged = [line["train/skipped_steps"] for line in history(place.run("small")) if "train/skipped_steps" in line]
    assert logged == [0, 1, 2, 2, 3, 3]  # after steps 2, 4, ..., 12
    assert all(tensor.isfinite().all() for tensor in place.checkpoint("small")["model"].values())
    figure(f"{value} in a pixel of 3 of 12 batches", "3 skipped, 3 counted, weights finite")


def test_a_spike_is_skipped(place: Place, figure: Figure) -> None:
    child = place.start("small", patches=[("spikes", [5], 1e6)], train__steps=12, optimizer__skip_norm=1e4)
    assert child.wait() == 0, child.said
    logged = [line["train/skipped_steps"] for line in history(place.run("small")) if "train/skipped_steps" in line]
    assert (logged[4], logged[5], logged[-1]) == (0, 1, 1)
    figure("a gradient 1,000,000 times too large, skip_norm = 10,000", "1 skipped, 1 counted")


def test_only_bad_batches_end_with_advice(place: Place, figure: Figure) -> None:
    place.finish("small", train__steps=4)
    child = place.start(
        "small", patches=[("bad_batches", list(range(100)), math.nan)], train__steps=40, optimizer__max_skips_in_a_row=6
    )
    assert child.wait() == 4 and "Lower [optimizer] learning_rate" in child.said, child.said
    assert place.status("small")["state"] == "failed"
    for name, steps in (("whole", 4), ("whole", 40)):
        place.finish(name, train__steps=steps)
    place.finish("small", train__steps=40)
    assert all(tensor.isfinite().all() for tensor in place.checkpoint("small")["model"].values())
    figure("nothing but NaN", "ends with status 4 and advice after 7 steps; the next start goes on")


@pytest.mark.parametrize("part", ["model", "ema", "optimizer"])
def test_what_is_not_finite_is_refused_at_load(place: Place, figure: Figure, part: str) -> None:
    """Though its checksum is right: the one before is used."""
    place.finish("small", train__steps=6)
    store = CheckpointStore(place.run("small").checkpoints)
    state = store.load("last")
    tensors = state[part]["state"][0] if part == "optimizer" else state[part]
    next(tensor for tensor in tensors.values() if tensor.numel() > 1).view(-1)[0] = math.nan
    plant(store, 6, state)
    child = place.start("small", train__steps=8)
    assert child.wait() == 0 and f"step_00000006.pt: damaged ({part}." in child.said, child.said
    assert place.newest_step("small") == 8
    figure(f"NaN in a checkpoint ({part})", "refused by name, the one before used")


def plant(store: CheckpointStore, step: int, state: dict[str, Any]) -> None:
    """A checkpoint with a manifest that fits."""
    path = store.folder / f"step_{step:08d}.pt"
    torch.save(state, path)
    manifest = path.with_suffix(".json")
    known = json.loads(manifest.read_text()) | {"size": path.stat().st_size, "sha256": sha256_of(path)}
    manifest.write_text(json.dumps(known))
