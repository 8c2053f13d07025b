"""Makes the Markdown reference of all sections and keys from their types."""

from pydantic.fields import FieldInfo

from lvae_torch.cfg.section import Section, choices
from lvae_torch.hparams.settings import COMMON, SECTIONS
from lvae_torch.models.families import FAMILIES


def reference() -> str:
    """The text of ``docs/settings.md``."""
    parts = [
        "# Settings\n\nMade by `python -m lvae_torch.hparams`; every key, its default, and what it does.\n",
    ]
    for name in SECTIONS:
        if name == "model":
            parts += [_table(f"[model], family = {family}", section) for family, section in FAMILIES.items()]
        else:
            parts.append(_table(f"[{name}]", COMMON[name]))
    return "\n".join(parts)


def _table(title: str, section: type[Section]) -> str:
    lines = [f"## {title}\n", "| key | default | meaning |", "| --- | --- | --- |"]
    for key, field in section.model_fields.items():
        default = "(required)" if field.is_required() else f"`{field.default!r}`"
        meaning = " ".join((field.description or "").split()).replace("|", r"\|")  # a bar would end the cell
        lines.append(f"| `{key}` | {default} | {meaning}{_choices_told(field)} |")
    return "\n".join(lines) + "\n"


def _choices_told(field: FieldInfo) -> str:
    found = choices(field)
    return f" One of {', '.join(f'`{value}`' for value in found)}." if len(found) > 1 else ""
