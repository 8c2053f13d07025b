"""Reads and checks a cfg; all problems are reported together before any work starts."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lvae_torch.cfg.expressions import evaluate, without_comment
from lvae_torch.cfg.reader import Entries, expectation_of, parse, parse_overrides, read_file
from lvae_torch.cfg.section import KeysError, Section
from lvae_torch.errors import CfgError, closest, say
from lvae_torch.files import NAME
from lvae_torch.hparams.checks import cross_problems
from lvae_torch.hparams.settings import COMMON, SECTIONS, Settings, with_batch_sizes
from lvae_torch.interop.efficient_vdvae_cfg import is_original, native_entries
from lvae_torch.models.families import FAMILIES
from lvae_torch.models.section import ModelSection

KEPT = "hparams.cfg"
"""The copy of its settings that a run keeps."""
SYNONYMS = {
    "lr": "learning_rate", "zdims": "z_channels", "z_dims": "z_channels", "nfilters": "n_filters",
    "freebits": "free_bits", "free_nats": "free_bits", "nonlin": "nonlinearity", "batchsize": "batch_size",
    "max_steps": "steps", "total_train_steps": "steps", "wd": "weight_decay", "beta_anneal": "beta",
    "merge_layers": "merge", "batchnorm": "batch_norm", "analytical_kl": "kl_estimate", "ema": "ema_decay",
}  # fmt: skip


def load(path: Path, overrides: Sequence[str] = (), with_images: bool = False) -> Settings:
    """Read a cfg, apply ``section.key=value`` overrides, and check everything.

    Args:
        with_images: also check the cfg against its dataset, if its dump exists or the catalogue lists it.
    Raises:
        CfgError: listing every problem with its line.
    """
    return _checked(expectation_of(Path(path)) | read_file(Path(path)), str(path), overrides, with_images)


def load_in_place(path: Path, overrides: Sequence[str] = (), with_images: bool = False) -> Settings:
    """``load``; of the ``hparams.cfg`` in a run's folder with the name and place that the folder has now.

    A folder that was copied or renamed is a run of its own, and does not lead back to the one it was.
    """
    return load(path, [*_place_of_run(Path(path)), *overrides], with_images)


def _place_of_run(path: Path) -> list[str]:
    folder = path.resolve().parent
    is_kept = path.name == KEPT and (folder / "checkpoints").is_dir() and NAME.fullmatch(folder.name)
    return [f"run.runs={str(folder.parent)!r}", f"run.name={folder.name}"] if is_kept else []


def load_text(text: str, name: str, overrides: Sequence[str] = ()) -> Settings:
    """The same for cfg text, such as the copy in a checkpoint; messages show ``name`` in place of the file."""
    return _checked(parse(text, name), name, overrides)


def _checked(entries: Entries, name: str, overrides: Sequence[str], with_images: bool = False) -> Settings:
    entries = _ours(entries | parse_overrides(overrides), name)
    problems: list[str] = []
    values = _evaluate(entries, problems)
    kinds = dict(COMMON)
    family = values["model"].get("family")
    if isinstance(family, str) and family in FAMILIES:
        kinds["model"] = FAMILIES[family]
    else:
        problems += _family_problems(family, entries)
    sections: dict[str, Any] = {
        section: _section(section, kinds[section], values[section], entries, problems)
        for section in SECTIONS
        if section in kinds
    }
    for section in {section for section, _ in entries} - set(SECTIONS):
        problems.append(f"[{section}] is no section.{_did_you_mean(section, SECTIONS)}")
    problems += [_located(problem, entries) for problem in cross_problems(sections, with_images)]
    if problems:
        raise _refusal(name, problems)
    return with_batch_sizes(Settings(**sections))


def model_section(family: str, values: Mapping[str, Any]) -> ModelSection:
    """The section of a family from plain values, as in ``[model]`` of a cfg.

    Raises:
        CfgError: listing every problem.
    """
    if family not in FAMILIES:
        raise CfgError(f"[model] family = {family!r} is no model family.{_did_you_mean(family, FAMILIES)}")
    problems: list[str] = []
    section = _section("model", FAMILIES[family], {"family": family, **values}, {}, problems)
    if problems:
        raise _refusal(f"family {family}", problems)
    assert isinstance(section, ModelSection)
    return section


def _located(problem: str, entries: Entries) -> str:
    """Add the file and line of the key to a problem ``[section] key ...``, if the key is set."""
    match = re.match(r"\[(\w+)\] (\w+)", problem)
    entry = entries.get((match[1], match[2])) if match else None
    return f"{problem} ({entry.where})" if entry else problem


def _ours(entries: Entries, name: str) -> Entries:
    """The entries, translated if they belong to another program; rank 0 prints the differences."""
    if not is_original(entries):
        return entries
    try:
        entries, notes = native_entries(entries)
    except CfgError as error:
        raise _refusal(name, re.split(r"\n(?! )", str(error))) from error  # indented lines continue the line above
    if os.environ.get("RANK", "0") == "0":
        told = ["settings of the original Efficient-VDVAE, translated (docs/efficient_vdvae.md):", *notes]
        say(f"{name}: " + "\n  ".join(told))
    return entries


def _refusal(name: str, problems: Sequence[str]) -> CfgError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return CfgError(f"{name}: {count}\n" + "\n".join(f"  {problem}" for problem in problems))


def _evaluate(entries: Entries, problems: list[str]) -> defaultdict[str, dict[str, Any]]:
    values: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for (section, key), entry in entries.items():
        if (section, key) == ("run", "name"):  # always text, even if it looks like a number
            values[section][key] = without_comment(entry.text).strip("'\"")
            continue
        try:
            values[section][key] = evaluate(entry.text)
        except CfgError as error:
            problems.append(f"[{section}] {key} ({entry.where}) {error}")
    return values


def _family_problems(family: object, entries: Entries) -> Iterator[str]:
    if family is not None:
        yield f"[model] family = {family!r} is no model family.{_did_you_mean(str(family), FAMILIES)}"
    elif ("model", "family") not in entries:
        yield f"[model] family is missing; choose one of {', '.join(FAMILIES)}."


def _section(
    name: str, kind: type[Section], values: dict[str, Any], entries: Entries, problems: list[str]
) -> Section | None:
    """Build a section and add what is wrong in it to ``problems``; None if a key is wrong by itself."""
    wrong = {key for section, key in entries if section == name} - values.keys()  # values that could not be read
    try:
        whole = kind(**values)
        return None if wrong else whole  # a default in place of a value that could not be read is not what was meant
    except ValidationError as error:
        details = [detail for detail in error.errors() if _key(detail) not in wrong]
    of_keys: defaultdict[str, list[str]] = defaultdict(list)
    for detail in details:
        if (key := _key(detail)) and (message := _plain(detail, key, kind)) not in of_keys[key]:
            of_keys[key].append(message)
    for key, messages in of_keys.items():
        entry = entries.get((name, key))
        at = f" = {entry.text} ({entry.where})" if entry else ""
        told = ", or ".join([*(message.rstrip(".") for message in messages[:-1]), messages[-1]])
        problems.append(f"[{name}] {key}{at}: {told}")
    wrong |= of_keys.keys()
    section, between = _despite_disagreement(kind, {key: value for key, value in values.items() if key not in wrong})
    concerned = [re.compile(rf"\b{re.escape(key)}\b") for key in wrong]
    told_between = [problem for problem in between if not any(key.search(problem) for key in concerned)]
    problems += [_located(f"[{name}] {problem}.", entries) for problem in told_between]
    return None if wrong else section


def _key(detail: ErrorDetails) -> str:
    return str(detail["loc"][0]) if detail["loc"] else ""


def _despite_disagreement(kind: type[Section], values: dict[str, Any]) -> tuple[Section | None, list[str]]:
    """The section of values that are right each by itself, and the problems between them; None if a key is missing."""
    try:
        return kind(**values), []
    except ValidationError as error:
        for detail in error.errors():
            if isinstance(found := detail.get("ctx", {}).get("error"), KeysError) and not detail["loc"]:
                return found.section, found.problems
    return None, []


def _plain(detail: ErrorDetails, key: str, kind: type[Section]) -> str:
    """A pydantic error in plain words."""
    context = detail.get("ctx", {})
    position = "".join(f" (element {p + 1})" for p in detail["loc"][1:] if isinstance(p, int))
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key.{_did_you_mean(key, kind.model_fields)}"
        case "missing":
            return "is missing and has no default."
        case "int_type" | "int_from_float":
            needed = "needs a whole number"
        case "float_type" | "finite_number":
            needed = "needs a finite number"
        case "bool_type":
            needed = "needs True or False"
        case "string_type":
            needed = "needs text (put it in quotes)"
        case "none_required":
            needed = "needs None"
        case "literal_error":
            needed = f"needs {context['expected']}"
        case "tuple_type" | "list_type":
            needed = "needs a list"
        case "greater_than":
            needed = f"must be above {context['gt']}"
        case "greater_than_equal":
            needed = f"must be at least {context['ge']}"
        case "less_than":
            needed = f"must be below {context['lt']}"
        case "less_than_equal":
            needed = f"must be at most {context['le']}"
        case "value_error":
            needed = str(context["error"]).rstrip(".")
        case _:
            needed = str(detail["msg"])
    return f"{needed}{position}."


def _did_you_mean(word: str, known: Collection[str]) -> str:
    meant = SYNONYMS[word] if SYNONYMS.get(word) in known else closest(word, known)
    return f" Did you mean {meant!r}?" if meant else f" Known: {', '.join(known)}."
