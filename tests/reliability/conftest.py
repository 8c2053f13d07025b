"""Figures of the fault matrix: each test tells its own, and all are printed at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import small
from faults import Figure, Place
from nursery import Nursery

FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """``figure(fault, what came out)``: a line at the end of the session."""

    def tell(fault: str, outcome: str) -> None:
        request.config.stash.setdefault(FIGURES, []).append(f"{fault}: {outcome}")

    return tell


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section("faults and what came out")
        for line in figures:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery() as started:
        yield started


@pytest.fixture
def place(nursery: Nursery, tmp_path: Path) -> Place:
    """A folder with a dump and a tiny cfg."""
    small.write_dump(tmp_path / "dumps")
    return Place.make(nursery, tmp_path)
