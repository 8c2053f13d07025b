"""The Python files of the program, as the tests of its layout and of its habits read them."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def dotted(path: Path) -> str:
    """lvae_torch/models/contract.py -> lvae_torch.models.contract; a package is named by its folder."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"
