"""Sections of plain values as the text of a cfg."""

from collections.abc import Mapping
from typing import Any


def cfg_text(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """``section -> key -> value`` as it is read again."""
    blocks = [
        "\n".join([f"[{name}]", *(f"{key} = {value!r}" for key, value in keys.items())])
        for name, keys in sections.items()
        if keys
    ]
    return "\n\n".join(blocks) + "\n"
