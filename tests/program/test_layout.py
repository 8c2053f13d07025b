"""The house: which room may use which, and what lies where."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import ROOT, dotted, place, sources, tree

from lvae_torch.hparams.settings import COMMON
from lvae_torch.models.families import FAMILIES

CONTRACT = ["models.contract", "models.sources"]  # what a model owes the rest; never a family by name
GROUND = ["errors", "files", "cfg", "distributed"]

# Ground floor first. A room may use itself and what stands beside it here, all of which stands above its own line.
ROOMS: dict[str, list[str]] = {
    "errors": [],
    "files": ["errors"],
    "distributed": ["errors"],
    "cli": ["errors", "files", "distributed"],
    "cfg": ["errors", "files"],
    "distributions": [],
    # one section of the cfg, one room; each takes its own section, never all of them
    "data": GROUND,
    "runs": GROUND,
    "models": ["errors", "cfg", "distributions", "data.shapes"],
    "elbo": [*GROUND, "distributions", "data", *CONTRACT, "models.layout"],
    "reporting": ["errors", "files", "runs.folder"],
    "training": [*GROUND, *CONTRACT, "models.layout", "data", "elbo", "reporting", "runs"],
    "compression": [*GROUND, "distributions", *CONTRACT, "models.likelihoods.row_slices", "data", "elbo"],
    "synthesis": [*GROUND, "distributions", *CONTRACT, "compression", "data", "elbo", "reporting"],
    # settings and weights of other programs
    "interop": ["errors", "cfg", "distributions", "data.shapes", "models"],
    # all sections together, and a trained run
    "hparams": [*GROUND, "data", "elbo.section", "interop", "models", "runs", "synthesis.section", "training.section"],
    "trained": [
        *(*GROUND, "distributions", "data", "elbo", "hparams", *CONTRACT, "runs"),
        *("synthesis.codes", "synthesis.identity", "synthesis.section", "synthesis.temperatures"),
        *("reporting.belonging", "training.wrapping"),
    ],
    # the page in the browser, on the Python interface to trained runs
    "explore": [
        *(*GROUND, "data", "elbo.bounds", "models.sources", "reporting", "synthesis.codes", "trained"),
    ],
    # runs of other programs, written as runs of ours
    "importing": [*GROUND, "cli", "elbo.objective", "hparams", "interop", "models.contract", "runs", "training"],
    # where a run goes on, and what changed since
    "resuming": [*GROUND, "data", "hparams", "runs", "training.optimization", "training.section"],
    "doctor": ["cli", "distributed", "errors", "runs.version"],
    # a run as a page to look at
    "report": [
        *(
            *GROUND,
            "cli",
            "data",
            "hparams",
            "importing.published",
            *CONTRACT,
            "reporting",
            "runs",
            "synthesis",
            "trained",
        ),
    ],
    # the commands read the cfg and put the rooms together
    "train": ["*"],
    "synthesize": ["*"],
    "info": ["*"],
    "sweep": ["*"],
    "show": ["*"],
    "export": ["*"],
    "import_run": ["*"],
}
DATA_SCRIPTS = ["errors", "files", "distributed", "data", "cli"]  # recipes make dumps and know nothing of models
KNOW_ALL_SECTIONS = {"hparams", "trained", "importing", "resuming", "report"} | {
    room for room, allowed in ROOMS.items() if allowed == ["*"]
}
LOOSE_FILES = {"__init__", "__main__", "cli", "errors", "files"} | {
    r for r, allowed in ROOMS.items() if allowed == ["*"]
}

ONLY_TORCH = ["distributions"]  # formulas on tensors: no other package


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "lvae_torch").with_suffix("").parts[0]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all imports of a file, also those inside functions and those for type checkers only."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}" if is_module(f"{base}.{alias.name}") else base


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def house_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and target, without the package's own name, of what a file takes from other files of lvae_torch."""
    for line, name in imports(path):
        if name.startswith("lvae_torch."):
            yield line, name.removeprefix("lvae_torch.")


def allows(allowed: list[str], target: str) -> bool:
    return "*" in allowed or any(target == room or target.startswith(f"{room}.") for room in allowed)


def test_the_table_has_no_arrow_upwards() -> None:
    seen: set[str] = set()
    for room, allowed in ROOMS.items():
        assert {entry.split(".")[0] for entry in allowed} - {"*"} <= seen, f"{room} uses a room that stands below it"
        seen.add(room)


def test_the_count_of_arrows_finds_no_circle() -> None:
    """By whole rooms, as a reader sees them, not by the modules that the table allows."""
    counted = subprocess.run([sys.executable, "-m", "build.imports"], cwd=ROOT, capture_output=True, text=True)
    assert counted.returncode == 0, counted.stderr
    heights = [line.split()[:2] for line in counted.stdout.splitlines()[:-1]]
    assert {room for _, room in heights} >= set(ROOMS)
    assert counted.stdout.splitlines()[-1].endswith("loose files at the top")


def test_every_file_has_a_room() -> None:
    rooms = {room_of(path) for path in sources("lvae_torch")} - {"__init__", "__main__"}
    homeless = sorted(rooms - set(ROOMS))
    assert not homeless, "give each a line in ROOMS"


def test_rooms_use_only_what_they_may() -> None:
    upwards = [
        f"{place(path, line)}: {room_of(path)} may not use {target}"
        for path in sources("lvae_torch")
        if path.name != "__main__.py"  # commands: they stand above all rooms, wherever they lie
        for line, target in house_imports(path)
        if not allows([room_of(path), *ROOMS.get(room_of(path), ["*"])], target)
    ]
    assert not upwards, "\n".join(["", *upwards])


def test_nothing_else_lies_loose_at_the_top() -> None:
    loose = {path.stem for path in (ROOT / "lvae_torch").glob("*.py")}
    assert loose == LOOSE_FILES and len(loose) <= 12


def test_a_room_takes_its_own_section_never_all_settings() -> None:
    curious = [
        f"{place(path, node.lineno)}: {ast.unparse(node)}"
        for path in sources("lvae_torch")
        if room_of(path) not in KNOW_ALL_SECTIONS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Name | ast.alias) and getattr(node, "id", getattr(node, "name", "")) == "Settings"
    ]
    assert not curious, "\n".join(["", *curious])


def test_each_section_lies_in_the_room_of_its_name() -> None:
    rooms = {"run": "runs", "data": "data", "model": "models", "loss": "elbo", "val": "elbo", "optimizer": "training",
             "train": "training", "synthesis": "synthesis"}  # fmt: skip
    homes = {name: kind.__module__ for name, kind in COMMON.items()}
    assert homes == {name: f"lvae_torch.{rooms[name]}.section" for name in homes}
    assert {kind.__module__.split(".")[1] for kind in FAMILIES.values()} == {rooms["model"]}
    assert {kind.__module__.split(".")[-1] for kind in FAMILIES.values()} == {"section"}


def test_data_scripts_use_only_what_they_may() -> None:
    upwards = [
        f"{place(path, line)}: data_scripts may not use {target}"
        for path in sources("data_scripts")
        for line, target in house_imports(path)
        if not allows(DATA_SCRIPTS, target)
    ]
    assert not upwards, "\n".join(["", *upwards])


def test_nobody_uses_what_lies_outside_the_house() -> None:
    outside = [
        f"{place(path, line)}: {name}"
        for path in sources("lvae_torch")
        for line, name in imports(path)
        if name.split(".")[0] in {"data_scripts", "tests", "benchmarks"}
    ]
    assert not outside, "\n".join(["", *outside])


@pytest.mark.parametrize("room", ONLY_TORCH)
def test_formulas_need_torch_and_nothing_else(room: str) -> None:
    allowed = {"torch", "lvae_torch"} | sys.stdlib_module_names
    others = [
        f"{place(path, line)}: {name}"
        for path in sources(f"lvae_torch/{room}")
        for line, name in imports(path)
        if name.split(".")[0] not in allowed
    ]
    assert not others, "\n".join(["", *others])
