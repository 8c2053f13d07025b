"""The list of published models: its form, its numbers, and the memory of what was imported."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from other_programs import VDVAE, import_it, vdvae_model, vdvae_state
from sites import Site

from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import check_name, read_json
from lvae_torch.hparams import load
from lvae_torch.import_run import command as import_command
from lvae_torch.importing.models import command as models
from lvae_torch.importing.published import RECORD, Published, published_models
from lvae_torch.info import meta_model, shape_of_data
from lvae_torch.interop.vdvae_presets import PRESETS
from lvae_torch.models.families import FAMILIES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("model", published_models().values(), ids=published_models())
def test_every_entry_is_whole(model: Published) -> None:
    assert check_name(model.name, "name") == model.name
    assert model.family in FAMILIES and model.name.startswith(model.family)
    assert model.base.startswith("https://") and not model.base.endswith("/")
    assert all(check_name(file, "file") == file for file in model.files)
    assert (model.published > 10) == (model.unit == "nats")
    assert bool(model.remark) == (model.state != "as stated")
    if model.preset is not None:
        preset = PRESETS[model.preset]
        assert (model.parameters, model.files[0][-13:]) == (preset.n_parameters, "-model-ema.th")
        assert abs(model.published - preset.bits_per_dim) < 0.05  # of four seeds the mean


def test_no_two_have_one_name() -> None:
    from lvae_torch.importing.published import LIST

    assert len(json.loads(LIST.read_text())) == len(published_models())


def test_sizes_are_those_of_the_examples() -> None:
    """Each count is that of the example of the same model."""
    for short, half in (("cifar10", "jax"), ("ffhq1024", "torch"), ("celeba64", "jax")):
        stem = {"celeba64": "celebA64"}.get(short, short)
        settings = load(ROOT / "egs" / "efficient_vdvae" / f"{stem}_baseline.cfg", ["data.dumps=nowhere"])
        count = sum(p.numel() for p in meta_model(settings, *shape_of_data(settings)).parameters())
        model = published_models()[f"efficient_vdvae_{short}_{half}"]
        assert (model.parameters, model.bytes_of(model.files[0])) == (count, 16 * count)


def test_the_command_lists_and_tells(capsys: pytest.CaptureFixture[str]) -> None:
    models([])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(published_models()) + 2
    models(["vdvae_ffhq1024"])
    told = capsys.readouterr().out
    assert "probably hold the ffhq256 model" in told and "ffhq1024-iter-1700000-model-ema.th  about 437 MB" in told
    with pytest.raises(CfgError, match="no published model of that name"):
        models(["vdvae_mnist"])


def test_files_of_ones_own_are_imported_without_source() -> None:
    with pytest.raises(CfgError, match=r"lvae import mine/run --name first"):
        import_command(["first", "--source", "mine/run"])


def test_the_first_import_records_checksums_and_later_ones_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = published_models()["vdvae_cifar10_seed0"]
    small = Published(**{**listed.__dict__, "preset": None})
    monkeypatch.setattr("lvae_torch.import_run.published_models", lambda: {small.name: small})
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "hparams.json").write_text(json.dumps(VDVAE))
    torch.save(vdvae_state(vdvae_model(0)), theirs / listed.files[0])
    source = f"--source={theirs}"
    run = import_it(tmp_path, small.name, "one", source)
    assert read_json(run / "status.json")["step"] == 900_000
    record = read_json(tmp_path / "runs" / RECORD)
    assert record == {small.name: {listed.files[0]: record[small.name][listed.files[0]]}}
    import_it(tmp_path, small.name, "two", source)
    torch.save(vdvae_state(vdvae_model(1)), theirs / listed.files[0])
    with pytest.raises(DataError, match=r"One of both is not the published file"):
        import_it(tmp_path, small.name, "three", source)
    assert not (tmp_path / "runs" / "three").exists()


def test_files_are_fetched_from_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.th").write_bytes(b"weights")
    command = [
        sys.executable,
        "-m",
        "data_scripts.fetch_files",
        str(tmp_path / "there"),
        str(tmp_path / "here"),
        "a.th",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "a.th: sha256" in done.stdout, done.stderr
    shutil.rmtree(tmp_path / "there")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3 and "could not be had" in done.stderr


def test_downloads_lie_below_the_folder_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    """In one that can be written; where the command is given, nothing is left."""
    listed = published_models()["vdvae_cifar10_seed0"]
    files = (listed.files[0], "hparams.json")
    small = Published(**{**listed.__dict__, "preset": None, "base": empty_site.url, "files": files})
    monkeypatch.setattr("lvae_torch.import_run.published_models", lambda: {small.name: small})
    torch.save(vdvae_state(vdvae_model(0)), tmp_path / "weights")
    empty_site.files = {files[0]: (tmp_path / "weights").read_bytes(), files[1]: json.dumps(VDVAE).encode()}
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path / "here")
    run = import_it(tmp_path, small.name, "one")
    assert read_json(run / "status.json")["step"] == 900_000
    assert not [*(tmp_path / "here").iterdir()]
    folder = tmp_path / "runs" / ".downloads" / small.name
    assert {name: (folder / name).read_bytes() for name in files} == empty_site.files
    assert f"{folder}: kept" in capfd.readouterr().out
