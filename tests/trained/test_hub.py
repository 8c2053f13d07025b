"""Bundles from a zip file and from the hub: whole, checked, asked for by rank 0 alone; nothing is uploaded unasked."""

import json
import os
import stat
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from disks import full_disk
from hub_stand_in import Hub, served
from running import under_torchrun

from lvae_torch.errors import CfgError, DataError
from lvae_torch.runs.bundle import CARD, SETTINGS, WEIGHTS
from lvae_torch.runs.bundle_zip import zip_bundle
from lvae_torch.trained import hub as hubs
from lvae_torch.trained.hub import Address
from lvae_torch.trained.loading import find_run, load_run

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLE = REPOSITORY / "egs" / "pretrained" / "efficient_vdvae_mnist"
FILES = {name: (BUNDLE / name).read_bytes() for name in (WEIGHTS, SETTINGS, CARD)}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with served(Hub()) as site:
        yield site


def environment(hub: Hub, home: Path, **more: str) -> dict[str, str]:
    """In which the library asks the stand-in."""
    asks = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    return {**os.environ, **asks, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1", "HF_TOKEN": "secret-token", **more}


def lvae(*arguments: str, env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lvae_torch", *arguments]
    env = {**env, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=200)


def sampled(run: str, env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    sets = ["--set=synthesis.n_images=4", "--set=run.device=cpu"]
    return lvae("synthesize", run, "--mode", "generation", *sets, env=env, folder=folder)


@pytest.mark.slow
def test_a_bundle_is_used_from_the_hub_and_from_its_cache(hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")
    commit = hub.put("lab/digits", {**FILES, "extra.bin": b"not asked for"})
    env = environment(hub, tmp_path / "home")
    result = sampled("hf://lab/digits", env, tmp_path)
    assert result.returncode == 0, result.stderr
    assert commit in result.stderr and "secret-token" not in result.stderr + result.stdout
    metrics = json.loads((tmp_path / "runs/digits/synthesis/generation/metrics.json").read_text())
    assert metrics["run"] == "digits"
    assert not any("extra.bin" in asked for asked in hub.asked)
    asked = len(hub.asked)
    result = sampled("hf://lab/digits", {**env, "HF_HUB_OFFLINE": "1"}, tmp_path)
    assert result.returncode == 0 and len(hub.asked) == asked, "from the cache, without a question"
    result = sampled("hf://lab/others", {**env, "HF_HUB_OFFLINE": "1"}, tmp_path)
    assert result.returncode == 3 and "hf://lab/others: it is not in the cache" in result.stderr


@pytest.fixture
def asks(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The library of this process asks the stand-in, and keeps what it gets in a folder of the test."""
    library = pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the stand-in has no such store
    places = {"endpoint": hub.url, "token": False}

    def download(repo: str, **options: Any) -> str:
        return str(library.snapshot_download(repo, cache_dir=tmp_path / "cache", **options, **places))

    api = library.HfApi(endpoint=hub.url, token="secret-token")
    shim = SimpleNamespace(snapshot_download=download, create_repo=api.create_repo, upload_folder=api.upload_folder)
    monkeypatch.setattr(hubs, "_library", lambda: shim)
    return hub


def test_revisions_and_refusals(asks: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asks.put("lab/digits", {"README.md": b"nothing here"})
    old = asks.put("lab/digits", {**FILES, "extra.bin": b"not asked for"}, branch="v1")
    run = load_run("hf://lab/digits@v1", device="cpu")
    assert run.name == "digits" and torch.equal(run.sample(2, seed=1), load_run(BUNDLE, device="cpu").sample(2, seed=1))
    assert old in capsys.readouterr().err and not any("extra.bin" in asked for asked in asks.asked)
    for address, told in (
        ("hf://lab/digits", "no bundle of this program"),
        ("hf://lab/digits@v7", "no such revision"),
        ("hf://nobody/nothing", "no such repository"),
    ):
        with pytest.raises(DataError, match=told):
            find_run(address)


def test_damage_on_the_way_is_found(asks: Hub, tmp_path: Path) -> None:
    asks.put("lab/digits", FILES)
    _, folder = find_run("hf://lab/digits")
    blob = (folder / WEIGHTS).resolve()
    broken = bytearray(blob.read_bytes())
    broken[-100] ^= 255
    blob.write_bytes(broken)
    with pytest.raises(DataError, match=r"model\.safetensors is damaged \(another checksum\)"):
        find_run("hf://lab/digits")


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the library's own
def test_a_bundle_goes_up_and_comes_back(asks: Hub) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")
    told = hubs.upload(BUNDLE, Address.of("hf://me/mine"))
    assert told and asks.revisions["me/mine", "main"] == FILES
    assert load_run("hf://me/mine", device="cpu").name == "mine"


@pytest.mark.slow
def test_only_rank_0_asks(hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")
    hub.put("lab/digits", FILES)
    env = {k: v for k, v in environment(hub, tmp_path / "home").items() if k not in os.environ or k == "HF_TOKEN"}
    arguments = ["hf://lab/digits", "--mode", "generation", "--runs", str(tmp_path / "runs")]
    sets = ["--set=synthesis.n_images=4", "--set=run.device=cpu"]
    under_torchrun("lvae_torch.synthesize", *arguments, *sets, **env)
    assert len([asked for asked in hub.asked if asked.startswith("GET") and asked.endswith(WEIGHTS)]) == 1
    under_torchrun_fails(["hf://lab/nothing", *arguments[1:], *sets], env)


def under_torchrun_fails(arguments: list[str], env: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="no such repository"):
        under_torchrun("lvae_torch.synthesize", *arguments, **env)


@pytest.mark.slow
def test_export_uploads_only_when_asked(hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")
    env = environment(hub, tmp_path / "home")
    result = lvae("export", str(BUNDLE), str(tmp_path / "mine"), env=env, folder=tmp_path)
    assert result.returncode == 0 and not hub.asked, result.stderr
    result = lvae("export", str(BUNDLE), "--to", "hf://me/mine", "--license", "mit", env=env, folder=tmp_path)
    assert result.returncode == 0 and "hf://me/mine: uploaded" in result.stdout, result.stderr
    files = hub.revisions["me/mine", "main"]
    assert set(files) >= {WEIGHTS, SETTINGS, CARD} and b"mit" in files[CARD]
    result = sampled("hf://me/mine", environment(hub, tmp_path / "other"), tmp_path)
    assert result.returncode == 0, result.stderr
    result = lvae("export", str(BUNDLE), env=env, folder=tmp_path)
    assert result.returncode == 2 and "--to hf://user/name" in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        *("hf://", "hf://one", "hf://a/b/c", "hf://a/..", "hf://../b", "hf://a/b@", "hf://a/b c", "hf://a/b@x..y"),
        *("hf://-a/b", "hf://a/b@re vision"),
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(CfgError, match=r"hf://|the name on the hub"):
        find_run(text)


def test_addresses() -> None:
    assert Address.of("hf://a/b-1.2") == Address("a/b-1.2") and Address.of("hf://a/b@pr/3").revision == "pr/3"
    assert str(Address.of("hf://a/b@v1")) == "hf://a/b@v1" and Address.of("hf://a/b@v1").name == "b"


def test_the_library_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CfgError, match=r"lvae_torch\[hub\]"):
        hubs._library()


def test_a_zip_is_as_good_as_its_folder(tmp_path: Path) -> None:
    zip_bundle(BUNDLE, tmp_path / "digits.zip")
    one, other = load_run(BUNDLE, device="cpu"), load_run(tmp_path / "digits.zip", device="cpu")
    assert other.name == "digits" and torch.equal(one.sample(2, seed=1), other.sample(2, seed=1))
    with zipfile.ZipFile(tmp_path / "of a folder.zip", "w") as archive:
        for name, data in FILES.items():
            archive.writestr(f"digits/{name}", data)
        archive.writestr("digits/picture.png", b"ignored")
    assert load_run(tmp_path / "of a folder.zip", device="cpu").step == one.step
    with pytest.raises(DataError, match="something already"):
        zip_bundle(BUNDLE, tmp_path / "digits.zip")


def crafted(path: Path, **members: bytes | zipfile.ZipInfo) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # of doubled names
        for name, data in members.items():
            archive.writestr(name, data)  # type: ignore[arg-type]
    return path


def test_zips_that_mean_harm_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    bomb = crafted(tmp_path / "bomb.zip", **{WEIGHTS: b"\0" * 50_000_000, SETTINGS: FILES[SETTINGS]})
    with pytest.raises(DataError, match=r"50,000,000 bytes in .* no file of a bundle has"):
        find_run(bomb)
    climbing = crafted(tmp_path / "climbing.zip", **{f"../outside/{WEIGHTS}": b"x", f"/{SETTINGS}": b"x", "../x": b"x"})
    with pytest.raises(DataError, match="no whole bundle"):
        find_run(climbing)
    assert not outside.exists()
    twice = tmp_path / "twice.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(twice, "w") as archive:
        warnings.simplefilter("ignore")
        for name in (WEIGHTS, SETTINGS, SETTINGS):
            archive.writestr(name, FILES[name])
    with pytest.raises(DataError, match="twice"):
        find_run(twice)
    link = zipfile.ZipInfo(WEIGHTS)
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr(SETTINGS, FILES[SETTINGS])
    with pytest.raises(DataError, match="is a link"):
        find_run(tmp_path / "link.zip")


@pytest.mark.parametrize("data", [b"", b"PK", b"no zip", FILES[SETTINGS]])
def test_files_that_are_no_zip_are_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(DataError, match="damaged, or no zip file"):
        find_run(tmp_path / "x.zip")


def test_a_zip_cut_short_or_changed_is_told(tmp_path: Path) -> None:
    zip_bundle(BUNDLE, tmp_path / "a.zip")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    (tmp_path / "short.zip").write_bytes(data[: len(data) // 2])
    data[len(data) // 3] ^= 255
    (tmp_path / "changed.zip").write_bytes(data)
    for name in ("short.zip", "changed.zip"):
        with pytest.raises(DataError, match="damaged"):
            find_run(tmp_path / name)


def test_a_disk_that_is_full_is_no_damage(tmp_path: Path) -> None:
    zip_bundle(BUNDLE, tmp_path / "a.zip")
    for n_bytes in (1000, len(FILES[WEIGHTS]) // 2):
        with full_disk(n_bytes), pytest.raises(DataError, match=r"cannot be written \(File too large\)") as told:
            find_run(tmp_path / "a.zip")
        assert "damaged" not in str(told.value)


def test_a_name_of_invalid_bytes_in_a_zip_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("\u00e4\u00f6", "x")  # neither is ASCII, so that the zip says: UTF-8
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace("\u00e4\u00f6".encode(), b"\xff\xfe\xff\xfe"))
    with pytest.raises(DataError, match=r"a\.zip: damaged, or no zip file \(.*utf-8"):
        find_run(tmp_path / "a.zip")


def test_export_writes_a_zip(tmp_path: Path) -> None:
    result = lvae("export", str(BUNDLE), "deep/digits.zip", env=dict(os.environ), folder=tmp_path)
    assert result.returncode == 0, result.stderr
    run = load_run(tmp_path / "deep/digits.zip", device="cpu")
    assert run.name == "digits" and run.step == load_run(BUNDLE, device="cpu").step
