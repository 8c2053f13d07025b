"""What tests of whole trainings begin with."""

from pathlib import Path

import pytest
import small


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose ``dumps`` have the small images, 36 of them to train on."""
    small.write_dump(tmp_path / "dumps")
    return tmp_path
