"""All sections of a run, checked together: every problem is reported in one go, before any work starts."""

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from lvae_torch.cfg.expressions import evaluate, without_comment
from lvae_torch.cfg.reader import (
    Entries,
    parse,
    parse_overrides,
    read_file,
)
from lvae_torch.cfg.seal import sealed
from lvae_torch.cfg.section import Section
from lvae_torch.data.section import DataSection
from lvae_torch.elbo.section import LossSection, ValSection
from lvae_torch.errors import CfgError, say
from lvae_torch.runs.section import RunSection
from lvae_torch.synthesis.section import SynthesisSection
from lvae_torch.training.section import OptimizerSection, TrainSection

SYNONYMS = {
    "lr": "learning_rate", "zdims": "z_channels", "z_dims": "z_channels", "nfilters": "n_filters",
    "freebits": "free_bits", "free_nats": "free_bits", "nonlin": "nonlinearity", "batchsize": "batch_size",
    "max_steps": "steps", "total_train_steps": "steps", "wd": "weight_decay", "beta_anneal": "beta",
    "merge_layers": "merge", "batchnorm": "batch_norm", "analytical_kl": "kl_estimate", "ema": "ema_decay",
}  # fmt: skip


class Family(Protocol):
    """What settings need of a model family: the type of its ``[model]`` section."""

    @property
    def settings(self) -> type[Section]: ...


@dataclass(frozen=True)
class Settings:
    """A whole cfg: typed, complete, frozen."""

    run: RunSection
    data: DataSection
    model: Any
    """The section of the model's family."""
    loss: LossSection
    optimizer: OptimizerSection
    train: TrainSection
    val: ValSection
    synthesis: SynthesisSection


COMMON: dict[str, type[Section]] = {
    "run": RunSection, "data": DataSection, "loss": LossSection, "optimizer": OptimizerSection,
    "train": TrainSection, "val": ValSection, "synthesis": SynthesisSection,
}  # fmt: skip
SECTIONS = tuple(field.name for field in fields(Settings))


def load(path: Path, overrides: Sequence[str] = (), families: Mapping[str, Family] | None = None) -> Settings:
    """Read a cfg, put ``section.key=value`` overrides on top, and check it all.

    Raises:
        CfgError: listing every problem with its line.
    """
    return _check(read_file(Path(path)), str(path), overrides, families)


def load_text(
    text: str, name: str, overrides: Sequence[str] = (), families: Mapping[str, Family] | None = None
) -> Settings:
    """The same for cfg text, such as the copy in a checkpoint; ``name`` stands for the file in messages."""
    return _check(parse(text, name), name, overrides, families)


def _check(entries: Entries, name: str, overrides: Sequence[str], families: Mapping[str, Family] | None) -> Settings:
    entries = _ours(entries | parse_overrides(overrides), name)
    if families is None:
        from lvae_torch.models.families import FAMILIES

        families = FAMILIES
    problems: list[str] = []
    values = _evaluate(entries, problems)
    kinds = dict(COMMON)
    family = values["model"].get("family")
    if isinstance(family, str) and family in families:
        kinds["model"] = families[family].settings
    else:
        _report_family(family, families, entries, problems)
    sections: dict[str, Any] = {
        section: _section(section, kinds[section], values[section], entries, problems)
        for section in SECTIONS
        if section in kinds
    }
    for section in {section for section, _ in entries} - set(SECTIONS):
        problems.append(f"[{section}] is no section.{_did_you_mean(section, SECTIONS)}")
    if not problems:
        settings = Settings(**sections)
        problems += cross_checks(settings)
    if problems:
        raise _refusal(name, problems)
    return settings


def _ours(entries: Entries, name: str) -> Entries:
    """The entries, translated where they are those of another program; what differs is said once, on rank 0."""
    from lvae_torch.interop.efficient_vdvae_cfg import is_original, native_entries

    if not is_original(entries):
        return entries
    try:
        entries, notes = native_entries(entries)
    except CfgError as error:
        raise _refusal(name, re.split(r"\n(?! )", str(error))) from error  # indented lines belong to the one above
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
        if (section, key) == ("run", "name"):  # always text, even where it looks like a number
            values[section][key] = without_comment(entry.text).strip("'\"")
            continue
        try:
            values[section][key] = evaluate(entry.text)
        except CfgError as error:
            problems.append(f"[{section}] {key} ({entry.where}) {error}")
    return values


def _report_family(family: Any, families: Mapping[str, Family], entries: Entries, problems: list[str]) -> None:
    if family is not None:
        problems.append(f"[model] family = {family!r} is no model family.{_did_you_mean(str(family), families)}")
    elif ("model", "family") not in entries:
        problems.append(f"[model] family is missing; choose one of {', '.join(families)}.")


def _section(
    name: str, kind: type[Section], values: dict[str, Any], entries: Entries, problems: list[str]
) -> Section | None:
    failed = {key for section, key in entries if section == name} - values.keys()
    try:
        return kind(**values)
    except ValidationError as error:
        by_key: defaultdict[str, list[str]] = defaultdict(list)
        for detail in error.errors():
            key = str(detail["loc"][0]) if detail["loc"] else ""
            if key in failed:
                continue  # its value could not even be read: reported already
            message = _plain(detail, key, kind)
            if message not in by_key[key]:
                by_key[key].append(message)
        for key, messages in by_key.items():
            entry = entries.get((name, key))
            at = f" = {entry.text} ({entry.where})" if entry else ""
            told = ", or ".join([*(message.rstrip(".") for message in messages[:-1]), messages[-1]])
            problems.append(f"[{name}] {key}{at}: {told}".replace(f"[{name}] : ", f"[{name}] "))
        return None


def _plain(detail: Any, key: str, kind: type[Section]) -> str:
    """A pydantic error in a user's words."""
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


def _did_you_mean(word: str, known: Any) -> str:
    if SYNONYMS.get(word) in known:
        return f" Did you mean {SYNONYMS[word]!r}?"
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."


def cross_checks(settings: Settings) -> list[str]:
    """What is wrong between sections that are right each by itself."""
    problems = []
    train, optimizer = settings.train, settings.optimizer
    if train.batch_size % train.accumulate:
        problems.append(
            f"[train] accumulate = {train.accumulate} does not divide batch_size = {train.batch_size}; "
            "choose a divisor."
        )
    if optimizer.final_learning_rate > optimizer.learning_rate:
        problems.append(
            f"[optimizer] final_learning_rate = {optimizer.final_learning_rate} is above learning_rate = "
            f"{optimizer.learning_rate}; cosine and linear only fall."
        )
    match settings.loss.beta:
        case ("linear", int(first), int(last), _) if last <= first:
            problems.append(f"[loss] beta rises from step {first} to step {last}; give the later step second.")
    start, end = optimizer.decay_start, optimizer.decay_end
    if isinstance(start, int) and isinstance(end, int) and 0 < end <= start:
        problems.append(f"[optimizer] decay_end = {end} is not after decay_start = {start}; 0 is the last step.")
    if settings.val.patience and settings.val.every == 0:
        problems.append(
            f"[val] patience = {settings.val.patience} counts evaluations, but every = 0 has but one; set every."
        )
    # Epochs and steps cannot be compared before the data is open; ``in_steps`` asks again.
    warmup = optimizer.warmup_steps
    if isinstance(warmup, int) and isinstance(train.steps, int) and warmup >= train.steps:
        problems.append(
            f"[optimizer] warmup_steps = {warmup} takes all of [train] steps = {train.steps}; "
            "shorten one or lengthen the other."
        )
    return problems


def to_cfg(settings: Settings) -> str:
    """The resolved settings as a cfg that loads to the same settings."""
    blocks = []
    for name in SECTIONS:
        section = getattr(settings, name)
        lines = [f"{key} = {getattr(section, key)!r}" for key in type(section).model_fields]
        blocks.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(blocks) + "\n"


def sealed_cfg(settings: Settings) -> str:
    """The same under its checksum: the copy that a run keeps."""
    return sealed(to_cfg(settings))
