"""The Python blocks and commands of README and docs are run, so that they cannot become false."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lvae_torch.cli import COMMANDS
from lvae_torch.synthesis.modes import MODES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NO_TESTS = {"test_images"}  # a folder of pictures
WITH_PYTHON = [page for page in PAGES if "```python" in page.read_text()]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page in their order, as a reader would type them."""
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    script = "\n".join(blocks)
    result = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr


def commands() -> list[tuple[str, list[str]]]:
    """Every indented line of the pages that begins with one of our commands, without its comment."""
    found = []
    for page in PAGES:
        for line in page.read_text().replace("\\\n", " ").splitlines():
            if re.match(r"    (lvae |python -m lvae_torch|python -m data_scripts)", line):
                found.append((f"{page.name}: {line.strip()}", shlex.split(line, comments=True)))
    return found


def test_commands_name_what_there_is() -> None:
    wrong = []
    for where, words in commands():
        if words[0] == "lvae":
            name = words[1] if len(words) > 1 else "train"
        else:
            name = {"data_scripts": "data", "import_run": "import"}.get(
                words[2].split(".")[-1], words[2].split(".")[-1]
            )
        known = name in {*COMMANDS, "hparams"}
        modes = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--mode"]
        cfgs = [word for word in words if word.startswith("egs/") and not list(ROOT.glob(word))]
        if not known or cfgs or not set(modes) <= {*MODES, "MODE", "M"}:
            wrong.append(where)
    assert not wrong, "\n".join(["", *wrong])


def test_links_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not broken, "\n".join(["", *broken])


def heading_anchors(page: Path) -> set[str]:
    """As GitHub makes them of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def test_links_lead_to_headings() -> None:
    broken = [
        f"{page.name}: {target}#{anchor}"
        for page in PAGES
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text())
        if anchor not in heading_anchors(page.parent / target if target else page)
    ]
    assert not broken, "\n".join(["", *broken])


def test_rows_of_a_table_have_the_cells_of_its_head() -> None:
    """A bar in a text ends its cell, and what is too much of a row is not shown: it must be written as \\|."""
    wrong, width = [], 0
    for page in PAGES:
        for number, line in enumerate(page.read_text().splitlines(), 1):
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            if cells and width and cells != width:
                wrong.append(f"{page.name}:{number}: {line}")
            width = (width or cells) if cells else 0
    assert not wrong, "\n".join(["", *wrong])


def test_tests_that_pages_name_are_there() -> None:
    names = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    wrong = [
        f"{page.name}: {name}"
        for page in PAGES
        for span in re.findall(r"`([^`\n]+)`", page.read_text())
        for name in re.findall(r"^(?:tests/\S*/)?(test_\w+)(?:\.py)?$", span)
        if name not in names and name not in NO_TESTS
    ] + [
        f"{page.name}: {path}"
        for page in PAGES
        for path in re.findall(r"`(tests/[^`\s]+\.py)`", page.read_text())
        if not list(ROOT.glob(path))
    ]
    assert not wrong, "\n".join(["", *wrong])


def test_docker_run_is_given_what_it_knows() -> None:
    """What follows its options is one of its own words, or a program of the image."""
    script = (ROOT / "docker_run.sh").read_text()
    own = re.search(r"^  (train \| .*)\) inside=", script, re.MULTILINE)
    assert own is not None
    known = {*own[1].split(" | "), "data", "lvae", "torchrun", "python"}
    text = "\n".join(page.read_text() for page in PAGES)
    given = re.findall(r"\./docker_run\.sh((?: --(?:network|mount) [^\s`]+| --dry-run)*) ([a-z_]+)\b", text)
    assert given
    assert not {word for _, word in given} - known


def test_every_mode_family_and_command_is_in_the_readme() -> None:
    from lvae_torch.models.families import FAMILIES

    text = (ROOT / "README.md").read_text()
    missing = [name for name in (*FAMILIES, *MODES) if f"`{name}`" not in text]
    assert not missing
