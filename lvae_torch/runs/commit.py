"""The commit of the checkout that this program runs from."""

import subprocess
from functools import cache
from pathlib import Path


@cache
def commit() -> str | None:
    """Its hash, with ``-dirty`` behind it if tracked files were changed; None outside a checkout, or without git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None
