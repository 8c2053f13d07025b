"""What tests of the inference modes begin with."""

import shutil
from pathlib import Path

import pytest
import small

from lvae_torch.train import train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of a few steps, trained once for all files."""
    folder = tmp_path_factory.mktemp("trained")
    small.write_dump(folder / "dumps")
    train(small.settings(folder))
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may change."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"
