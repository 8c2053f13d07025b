"""What all tests share. Warnings are errors: see ``pyproject.toml``."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# One thread, also in the processes that tests start: small models gain nothing from more, and sums keep their order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import leftovers
import torch
from sites import Site, served

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    # No files, for the checkout may be read-only, as in the image; the same examples each time, for the same verdict.
    hypothesis.settings.register_profile("ours", database=None, derandomize=True)
    hypothesis.settings.load_profile("ours")
    leftovers.prepare()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Also by a test that fails: what trains on takes the cores from all others."""
    with leftovers.none_left():
        yield


@pytest.fixture(autouse=True)
def _draws_are_the_same_in_any_order() -> None:
    """What a test draws without a seed of its own would else depend on the tests before it in this process."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """``../shared``: reference numbers and data too large for the repository. Without it, the test is skipped."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared, which is not part of the repository")
    return folder


@pytest.fixture
def empty_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A web server on the loopback without files; fetching from it does not pause."""
    from data_scripts import download

    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0)
    with served(Site()) as site:
        yield site


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``data_scripts`` decodes pictures in this process: the start of others takes a second each."""
    from making import AtOnce

    from data_scripts import decoding, render

    monkeypatch.setattr(decoding, "ProcessPoolExecutor", AtOnce)
    yield
    render.opened.cache_clear()


@pytest.fixture(scope="session")
def small_mirror(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], Any]], tuple[Path, Any]]:
    """Makes the folder that a function lays out, once for each, and gives it with what the function tells of it."""
    made: dict[str, tuple[Path, Any]] = {}

    def make(lay_out: Callable[[Path], Any]) -> tuple[Path, Any]:
        if repr(lay_out) not in made:
            folder = tmp_path_factory.mktemp("mirror")
            made[repr(lay_out)] = folder, lay_out(folder)
        return made[repr(lay_out)]

    return make
