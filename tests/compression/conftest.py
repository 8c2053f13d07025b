"""What tests of archives begin with."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of ``N`` images, made once for all files."""
    from compression_cases import CASE, Array, N, compressor  # which skips where the coder is not installed

    from lvae_torch.compression.compressor import Contents

    path = tmp_path_factory.mktemp("archive") / "a.lvz"
    compressor().compress(Array(CASE.levels(N)), path, Contents("a test"), batch=8)
    return path
