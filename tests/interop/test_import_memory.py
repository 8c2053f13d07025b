"""An import holds little more than what it takes, however large the file is."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from other_programs import VDVAE, checkpoint_in, import_it, write_vdvae
from test_import_jax import write_state
from test_importing import SMALL

ROLLUP = Path("/proc/self/smaps_rollup")
pytestmark = pytest.mark.skipif(not ROLLUP.is_file(), reason="the memory of a process is read from Linux")
WIDE = 320
MOST = 2.2  # of the weights taken
SLACK = 12e6  # bytes that an import takes whatever it imports


def held() -> int:
    """Bytes of this process that are no pages of a file."""
    (line,) = (line for line in ROLLUP.read_text().splitlines() if line.startswith("Anonymous:"))
    return 1024 * int(line.split()[1])


@contextmanager
def most_held() -> Iterator[list[int]]:
    """A list that gets the most bytes held inside, beyond those before."""
    before, peak, is_over = held(), [0], threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            peak[0] = max(peak[0], held() - before)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        is_over.set()
        watcher.join()


def bytes_in(run: Path) -> int:
    """Of what the run has of the weights, each storage once."""
    state = checkpoint_in(run)
    moments = (state["optimizer"] or {"state": {}})["state"].values()
    tensors = [*state["model"].values(), *(state["ema"] or {}).values(), *(t for m in moments for t in m.values())]
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


@pytest.mark.parametrize("options", [(), ("--only-average",)], ids=["the whole state", "the average"])
def test_a_state_of_the_jax_half_is_never_held_whole(
    tmp_path: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("up_filters", "up_skip_filters", "down_filters"):
        monkeypatch.setitem(SMALL, key, [WIDE] * 3)
    monkeypatch.setitem(SMALL, "input_conv_filters", WIDE)
    write_state(tmp_path / "theirs")
    with most_held() as peak:
        run = import_it(tmp_path, tmp_path / "theirs", "taken", *options)
    taken = bytes_in(run)
    assert taken > 20e6  # the average alone, a quarter of the file
    assert peak[0] < MOST * taken + SLACK


@pytest.mark.parametrize("options", [(), ("--only-average",)], ids=["all files", "the average"])
def test_files_of_vdvae_are_read_as_they_are_taken(
    tmp_path: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VDVAE, "width", WIDE)
    monkeypatch.setitem(VDVAE, "custom_width_str", "")
    write_vdvae(tmp_path / "theirs")
    for path in (tmp_path / "theirs").glob("*.th"):
        torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=path.stem.endswith("ema"))
    with most_held() as peak:
        run = import_it(tmp_path, tmp_path / "theirs", "taken", *options)
    taken = bytes_in(run)
    assert taken > 20e6
    assert peak[0] < MOST * taken + SLACK
