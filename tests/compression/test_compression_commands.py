"""The commands ``compress`` and ``decompress``, and the mode ``compression``, on a small run."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from PIL import Image

from lvae_torch.compression.compress.__main__ import command as compress
from lvae_torch.compression.compressor import Compressor
from lvae_torch.compression.decompress.__main__ import command as decompress
from lvae_torch.data.dump import Dump
from lvae_torch.distributed.processes import Processes
from lvae_torch.errors import CfgError, DataError
from lvae_torch.export import export
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train

pytest.importorskip("constriction", reason="has no wheels for this machine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump and a run trained on it."""
    place = tmp_path_factory.mktemp("compression")
    small.write_dump(place / "dumps")
    train(small.settings(place))
    return place


def test_a_split_comes_back_as_a_dump_and_as_pictures(folder: Path, tmp_path: Path) -> None:
    run, archive = str(folder / "runs" / "small"), tmp_path / "test.lvz"
    compress([run, "test", str(archive), "--batch", "4"])
    decompress([str(archive), str(tmp_path / "dumps" / "again"), "--dump"])
    decompress([str(archive), str(tmp_path / "pictures")])
    wanted = Dump.open(folder / "dumps", "small").split("test").gather(np.arange(17)).numpy()
    found = Dump.open(tmp_path / "dumps", "again").split("decompressed").gather(np.arange(17)).numpy()
    assert np.array_equal(found, wanted)
    pictures = [np.asarray(Image.open(p)) for p in sorted((tmp_path / "pictures").iterdir())]
    assert np.array_equal(np.stack(pictures), 255 * wanted[..., 0])


def test_pictures_come_back(folder: Path, tmp_path: Path) -> None:
    run = str(folder / "runs" / "small")
    values = 255 * np.random.default_rng(0).integers(0, 2, (11, 21), np.uint8)
    (tmp_path / "given").mkdir()
    Image.fromarray(values).save(tmp_path / "given" / "a.png")
    compress([run, str(tmp_path / "given"), str(tmp_path / "a.lvz"), "--robust"])
    decompress([str(tmp_path / "a.lvz"), str(tmp_path / "again")])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "again" / "a.png")), values)
    with pytest.raises(CfgError, match="pictures of any size"):
        decompress([str(tmp_path / "a.lvz"), str(tmp_path / "dump"), "--dump"])


def test_the_run_is_found_or_named(folder: Path, tmp_path: Path) -> None:
    """An archive knows what its run was called; where that is no longer true, --run tells."""
    run, moved = folder / "runs" / "small", tmp_path / "moved"
    archive = tmp_path / "test.lvz"
    compress([str(run), "test", str(archive), "--limit", "3"])
    run.rename(moved)
    try:
        with pytest.raises(CfgError, match=r"its run was named .* Name it with --run"):
            decompress([str(archive), str(tmp_path / "out")])
        decompress([str(archive), str(tmp_path / "out"), "--run", str(moved)])
    finally:
        moved.rename(run)
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_name_of_two_things_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "test" / "a.png")
    monkeypatch.chdir(tmp_path)
    run = str(folder / "runs" / "small")
    with pytest.raises(CfgError, match=r"name the folder \./test"):
        compress([run, "test", "a.lvz"])
    compress([run, "./test", "a.lvz"])
    decompress(["a.lvz", "again"])
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["a.png"]


def test_wrong_inputs_are_named(folder: Path, tmp_path: Path) -> None:
    run = str(folder / "runs" / "small")
    with pytest.raises(DataError, match=r"nonsense: neither a folder, nor a .zip, nor a split of .* \(train, test\)"):
        compress([run, "nonsense", str(tmp_path / "a.lvz")])
    with pytest.raises(DataError, match="no such folder"):
        compress([run, "test", str(tmp_path / "missing" / "a.lvz")])
    (tmp_path / "a.lvz").write_text("mine")
    with pytest.raises(DataError, match="there already"):
        compress([run, "test", str(tmp_path / "a.lvz")])
    with pytest.raises(DataError, match="not an archive"):
        decompress([str(tmp_path / "a.lvz"), str(tmp_path / "out")])


def test_the_mode_reports_rates(folder: Path) -> None:
    synthesize(small.settings(folder), ["compression"])
    out = folder / "runs" / "small" / "synthesis" / "compression"
    found = json.loads((out / "metrics.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == ["bits.png", "metrics.json"]  # the archive is not kept
    assert found["n_images"] == 17
    assert found["bits_per_dim_of_archive"] == pytest.approx(8 * found["bytes"] / (17 * 64))
    assert len(found["kl_bits_per_dim_per_layer"]) == 2
    assert found["raw_to_archive"] == pytest.approx(17 * 64 / (8 * found["bytes"]))
    assert found["png_to_archive"] > 0 and found["webp_to_archive"] > 0


def test_a_run_whose_statistics_are_taken_anew_is_refused_and_its_bundle_is_not(folder: Path, tmp_path: Path) -> None:
    anew = ["--set", "val.batch_norm=reestimated"]
    run, archive = str(folder / "runs" / "small"), tmp_path / "test.lvz"
    with pytest.raises(CfgError, match=r"\[val\] batch_norm = reestimated .*export") as told:
        compress([run, "test", str(archive), *anew])
    assert run in str(told.value) and not archive.exists()
    export(small.settings(folder, val__batch_norm="reestimated"), folder / "runs" / "small", tmp_path / "bundle")
    dumps = ["--set", f"data.dumps={str(folder / 'dumps')!r}"]
    compress([str(tmp_path / "bundle"), "test", str(archive), "--limit", "3", *dumps])
    decompress([str(archive), str(tmp_path / "dumps" / "again"), "--dump"])
    assert Dump.open(tmp_path / "dumps", "again").counts == {"decompressed": 3}


def test_a_model_without_batch_norm_is_compressed_whatever_its_settings_say(folder: Path, tmp_path: Path) -> None:
    train(small.settings(folder, run__name="without", model__batch_norm=False, val__batch_norm="reestimated"))
    archive = tmp_path / "test.lvz"
    compress([str(folder / "runs" / "without"), "test", str(archive), "--limit", "3"])
    decompress([str(archive), str(tmp_path / "dumps" / "again"), "--dump"])
    assert Dump.open(tmp_path / "dumps", "again").counts == {"decompressed": 3}


def test_what_a_killed_mode_left_goes_with_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Path] = []
    compressed = Compressor.compress

    def seen(self: Compressor, source: Any, path: Path, *more: Any) -> Any:
        used.append(path.parent)
        assert list(path.parent.iterdir()) == []
        return compressed(self, source, path, *more)

    monkeypatch.setattr(Compressor, "compress", seen)
    few = small.settings(folder, synthesis__limit=3)
    synthesize(few, ["compression"])
    used[0].mkdir()
    (used[0] / "images.lvz.tmp").write_bytes(b"half")
    synthesize(few, ["compression"])
    out = folder / "runs" / "small" / "synthesis" / "compression"
    assert used[0].parent == out and {path.name for path in out.iterdir()} == {"bits.png", "metrics.json"}


def test_several_processes_are_refused_before_any_mode(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would wait for the first one, and give up after ``timeout_minutes``."""
    two = Processes(0, 2, torch.device("cpu"))
    monkeypatch.setattr("lvae_torch.synthesize.start_processes", lambda *_: nullcontext(two))
    with pytest.raises(CfgError, match=r"--mode compression: .* among 2 processes\. .*without torchrun"):
        synthesize(small.settings(folder), ["progressive", "compression"])
    assert not (folder / "runs" / "small" / "synthesis" / "progressive").exists()
