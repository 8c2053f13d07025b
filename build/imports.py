"""``python -m build.imports``: the rooms of ``lvae_torch``, and how many arrows lead from one to another."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def room_of(module: str) -> str:
    """The folder or file right below the package: ``lvae_torch.data.dump`` -> ``data``.

    A command that lies in its room is named as a command, ``lvae_torch.compression.compress.__main__`` -> ``compress``:
    like every command it may use all rooms.
    """
    parts = module.split(".")[1:] or ["__init__"]
    return parts[-2] if len(parts) > 2 and parts[-1] == "__main__" else parts[0]


def arrows() -> dict[str, set[str]]:
    """Which rooms each room imports from."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "lvae_torch").rglob("*.py")):
        room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lvae_torch."):
                found[room].add(room_of(node.module or ""))
    return {room: others - {room} for room, others in found.items()}


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """The height of each room: one above the highest that it uses.

    Raises:
        RecursionError: if rooms use one another in a circle.
    """
    heights: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in heights:
            heights[room] = 1 + max(map(height, graph.get(room, ())), default=0)
        return heights[room]

    for room in graph:
        height(room)
    return heights


def main() -> None:
    graph = arrows()
    heights = floors(graph)
    loose = [path.stem for path in (ROOT / "lvae_torch").glob("*.py")]
    for room in sorted(heights, key=lambda room: (heights[room], room)):
        print(f"{heights[room]:>2}  {room:<14} {', '.join(sorted(graph.get(room, ())))}")
    print(f"{len(heights)} rooms, {sum(map(len, graph.values()))} arrows, {len(loose)} loose files at the top")


if __name__ == "__main__":
    main()
