"""The pins, their hashes and licences, the audit, and what goes into the image."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from shell import stub

import lvae_torch
from build.audit import verdict
from build.licences import pins


@pytest.fixture(scope="module")
def text(repository: Path) -> str:
    return (repository / "build" / "requirements.txt").read_text()


def test_every_dependency_is_pinned_within_its_range(repository: Path, text: str) -> None:
    versions = {name: version for name, version, _ in pins(text)}
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(item) for item in project["dependencies"] + project["optional-dependencies"]["dev"]]
    assert not [
        str(want) for want in wanted if want.name not in versions or not want.specifier.contains(versions[want.name])
    ]


def test_every_pin_has_hashes(text: str) -> None:
    """pip then refuses what has none; and each line is one that pip and uv both read."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    machine = r"( ; platform_machine == 'x86_64')?"
    assert all(re.fullmatch(rf"\S+==\S+{machine} \\|    --hash=sha256:[0-9a-f]{{64}}( \\)?", line) for line in lines)
    packages = [index for index, line in enumerate(lines) if "==" in line]
    assert all("--hash" in lines[index + 1] for index in packages)
    assert len(packages) == len(list(pins(text)))


def test_pins_name_no_place(text: str) -> None:
    assert "://" not in text and "-index" not in text and "--find-links" not in text


def test_licences_are_listed_for_what_is_pinned(repository: Path, text: str) -> None:
    table = (repository / "docs" / "licences.md").read_text()
    listed = re.findall(r"^\| (\S+) \| (\S+) \| (.+?) \|", table, flags=re.MULTILINE)
    assert [(name, version) for name, version, _ in listed[2:]] == [pin[:2] for pin in pins(text)], "run make licences"
    assert [name for name, _, licence in listed if licence == "not stated"] == ["cuda-toolkit"]


@pytest.mark.parametrize("build", ["+cu126", ""])
def test_pins_for_an_older_cuda_keep_all_other_versions(
    repository: Path, tmp_path: Path, text: str, build: str
) -> None:
    """A uv that finds what it is bound to, and PyTorch for that CUDA or for none: then nothing is written."""
    folder = tmp_path / "build"
    folder.mkdir()
    for name in ("pins_older_cuda.sh", "resolving.sh", "requirements.txt"):
        shutil.copy(repository / "build" / name, folder)
    finding = f"""printf '%s\\n' "$@" >"{tmp_path}/asked"
        while (($#)); do case $1 in --constraint) bounds=$2 ;; --output-file) out=$2 ;; esac; shift; done
        sed -E 's/^torch==.*/&{build}/; s/$/ --hash=sha256:0/' "$bounds" >"$out"
    """
    stub(tmp_path / "bin", "uv", finding)
    path = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    made = subprocess.run([folder / "pins_older_cuda.sh"], env=path, capture_output=True, text=True)
    pinned = folder / "requirements-cu126.txt"
    if not build:
        assert made.returncode == 1 and "no PyTorch for cu126" in made.stderr and not pinned.exists()
        return
    assert made.returncode == 0, made.stderr
    assert "--torch-backend\ncu126\n" in (tmp_path / "asked").read_text()
    ours = {name: version for name, version, _ in pins(text)}
    theirs = {name: version for name, version, _ in pins(pinned.read_text())}
    assert theirs.pop("torch") == f"{ours['torch']}+cu126"
    assert theirs.items() <= ours.items() and {"torchvision", "numpy", "pydantic"} <= set(theirs)
    assert not [name for name in theirs if name.startswith(("nvidia-", "cuda-", "triton"))], "PyTorch names its own"


def package(name: str, *vulnerabilities: str) -> dict[str, object]:
    return {"name": name, "version": "1.0", "vulns": [{"id": v, "fix_versions": ["1.1"]} for v in vulnerabilities]}


def test_the_audit_tells_silence_from_safety() -> None:
    unknown = {"name": "b", "skip_reason": "not found"}
    assert verdict({"dependencies": [package("a")]}) == (0, ["0 known vulnerabilities in 1 packages."])
    for report in (None, {"dependencies": [unknown]}):
        status, lines = verdict(report)
        assert status == 0 and lines[0].startswith("NOT AUDITED")
    status, lines = verdict({"dependencies": [package("a", "CVE-1", "CVE-2"), unknown]})
    assert status == 1
    assert lines[0] == "a 1.0: CVE-1, fixed in 1.1"
    assert lines[-1] == "NOT AUDITED, for the registry does not know them: b."


def test_the_image_is_pinned_and_says_its_version(repository: Path) -> None:
    dockerfile = (repository / "build" / "Dockerfile").read_text()
    base = re.search(r"^ARG BASE_IMAGE=\S+:(\S+)$", dockerfile, flags=re.MULTILINE)
    assert base is not None and base[1] != "latest"
    assert f"ARG VERSION={lvae_torch.__version__}\n" in dockerfile
    assert "--require-hashes" in dockerfile
    assert (repository / ".dockerignore").read_text().splitlines()[1] == "*", "only what is named goes in"
