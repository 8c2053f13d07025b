"""Reads cfg files: sections of ``key = value``, comment lines with ``#`` or ``;``, and an optional base file."""

import configparser
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lvae_torch.cfg.expressions import without_comment
from lvae_torch.cfg.seal import check_seal
from lvae_torch.errors import CfgError, closest
from lvae_torch.files import expanded

SECTION_LINE = re.compile(r"\[([^\]]+)\]")
EXPECT_LINE = re.compile(r"#\s*Expect:\s*(\S.{0,998})")
KEY_LINE = re.compile(r"([^\s#=][^=]*?)\s*=")


@dataclass(frozen=True)
class Entry:
    """The text of one value, and where it stands: ``egs/x.cfg:12`` or ``--set``."""

    text: str
    where: str


Entries = dict[tuple[str, str], Entry]
"""(section, key) -> entry."""


def read_file(path: Path, chain: Sequence[Path] = ()) -> Entries:
    """Read the entries of a cfg; they override those of its base (``[base]`` section, ``file = other.cfg``).

    Raises:
        CfgError: naming the file, if it is missing, not a cfg, or part of a loop of bases.
    """
    if path.resolve() in [p.resolve() for p in chain]:
        raise CfgError(f"{path}: the base files form a loop: {' -> '.join(map(str, [*chain, path]))}.")
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        needed = f" (base of {chain[-1]})" if chain else ""
        raise CfgError(f"{path}{needed}: {_why_unread(path, error)}") from error
    check_seal(text, str(path))
    entries = parse(text, str(path))
    base = entries.pop(("base", "file"), None)
    if left_over := [key for section, key in entries if section == "base"]:
        raise CfgError(f"{path}: [base] has the key 'file' only, not {', '.join(map(repr, left_over))}.")
    if base is None:
        return entries
    try:
        named = expanded(without_comment(base.text).strip("'\""))
    except ValueError as error:
        raise CfgError(f"{path}: [base] file: {error}.") from error
    return read_file(path.parent / named, [*chain, path]) | entries


def _why_unread(path: Path, error: Exception) -> str:
    """Why a cfg cannot be read, and which one may have been meant."""
    if isinstance(error, IsADirectoryError):
        inside = ", ".join(map(str, sorted(path.glob("*.cfg"))[:3]))
        return f"a folder, where a .cfg file is needed. {f'In it: {inside}' if inside else 'It has none.'}"
    if isinstance(error, FileNotFoundError):
        meant = closest(path.name, (beside.name for beside in path.parent.glob("*.cfg")))
        guess = f" Did you mean {path.with_name(meant)}?" if meant else ""
        return f"cannot be read, for it is not there.{guess}"
    return f"cannot be read ({error})."


def expectation_of(path: Path) -> Entries:
    """The comment ``# Expect: ...`` above the first section of a cfg, as ``[run] expect``; empty if there is none.

    What a base expects is expected of the base alone.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}  # ``read_file`` tells why
    for number, line in enumerate(itertools.takewhile(lambda line: not line.startswith("["), lines), start=1):
        if match := EXPECT_LINE.fullmatch(line):
            return {("run", "expect"): Entry(repr(match[1]), f"{path}:{number}")}
    return {}


def parse(text: str, name: str) -> Entries:
    """Parse cfg text; messages show ``name`` in place of the file.

    Raises:
        CfgError: with the line, for duplicates and for lines that are not a section, key or comment.
    """
    parser = configparser.RawConfigParser(
        delimiters=("=",),
        comment_prefixes=("#", ";"),
        inline_comment_prefixes=None,
        strict=True,
        empty_lines_in_values=False,
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text, source=name)
    except configparser.MissingSectionHeaderError as error:
        raise CfgError(
            f"{name}:{error.lineno}: {error.line.strip()[:80]!r} stands before the first section, such as [run]. "
            "Give it one, or take it out."
        ) from error
    except configparser.Error as error:
        raise CfgError(str(error).replace("\n", " ")) from error
    if parser.defaults():
        raise CfgError(f"{name}: [DEFAULT] is no section of ours; name the section that each key belongs to.")
    lines = dict(_lines(text))
    return {
        (section, key): Entry(value, f"{name}:{lines.get((section, key), 0)}")
        for section in parser.sections()
        for key, value in parser.items(section)
    }


def parse_overrides(overrides: Sequence[str]) -> Entries:
    """Parse ``section.key=value`` texts, as given with ``--set``.

    Raises:
        CfgError: for anything of another form.
    """
    entries: Entries = {}
    for override in overrides:
        match = re.fullmatch(r"\s*([A-Za-z_]+)\.([A-Za-z_]\w*)\s*=(.*)", override, re.DOTALL)
        if match is None:
            raise CfgError(f"--set {override}: write section.key=value, for instance --set train.steps=1000.")
        section, key, value = match.groups()
        entries[section, key] = Entry(value.strip(), "--set")
    return entries


def _lines(text: str) -> Iterator[tuple[tuple[str, str], int]]:
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if match := SECTION_LINE.match(line):
            section = match.group(1)
        elif match := KEY_LINE.match(line):
            yield (section, match.group(1)), number
