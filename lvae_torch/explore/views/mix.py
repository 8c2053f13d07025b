"""Mix: the top layers of one image with the rest of another, and the line from one to the other."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lvae_torch.explore.look import Look, Shown, plane, sheet
from lvae_torch.explore.requests import Mix
from lvae_torch.explore.stage import Chosen, Stage
from lvae_torch.explore.views.reconstruction import GRIDS, known_layers
from lvae_torch.models.sources import between
from lvae_torch.reporting.plane import Clouds

N_WEIGHTS = 9


def mix(stage: Stage, asked: Mix) -> Look:
    """Mixtures by layers, and interpolations.

    Raises:
        RefusedError: if there are no such images, or not so many layers.
    """
    if asked.layers:
        stage.layer(asked.layers - 1)
    a, b = stage.image(asked.a), stage.image(asked.b)
    z_a, z_b = stage.run.encode(a.x), stage.run.encode(b.x)
    begin = f"a = {a.line}\nb = {b.line}\nz_a, z_b = run.encode(a), run.encode(b)\n"
    weights = sorted({*(k / (N_WEIGHTS - 1) for k in range(N_WEIGHTS)), asked.weight})
    line = stage.run.decode([torch.cat([between(p, q, w) for w in weights]) for p, q in zip(z_a, z_b, strict=True)])
    more = (
        f"weights = {weights}\n"
        "z = [torch.cat([between(p, q, w) for w in weights]) for p, q in zip(z_a, z_b, strict=True)]\n"
        "line = run.decode(z)\n"
    )
    imports = ["import torch", "from lvae_torch.models.sources import between"]
    numbers = {"a": a.told, "b": b.told, "weights": weights}
    chosen = weights.index(asked.weight)
    if stage.are_points:
        clouds: Clouds = {
            "data": stage.behind,
            "line from a to b": line,
            "a, b": torch.cat([a.x, b.x]),
            "chosen": line[chosen, None],
        }
        shown = plane("between", clouds, stage.bounds, f"The line from {a.told} to {b.told}", ["line from a to b"])
        more += (
            f'clouds = {{"data": {stage.behind_line}, "line from a to b": line, "a, b": torch.cat([a, b]), '
            f'"chosen": line[{chosen}, None]}}\n'
            f'save_png(Path("between.png"), plane_picture(clouds, {stage.bounds}, joined=["line from a to b"]))\n'
        )
        imports += [
            "from lvae_torch.reporting.grids import save_png",
            "from lvae_torch.reporting.plane import plane_picture",
        ]
        return Look([shown], stage.begin(*imports) + begin + more, numbers)
    more += (
        f'save_png(Path("between.png"), image_grid(torch.cat([a, line[{chosen}, None], b]), 3))\n'
        f'save_png(Path("line.png"), image_grid(line, {len(weights)}))\n'
    )
    counts = sorted({*known_layers(stage.n_layers), asked.layers})
    pictures, layers = _by_layers(stage, asked, counts, (a, b), (z_a, z_b))
    told = f"{asked.weight:.0%} of the way from {a.told} to {b.told}"
    pictures += [
        sheet("between", torch.cat([a.x, line[chosen, None], b.x]), 3, told, ("A", f"{asked.weight:.0%}", "B")),
        sheet("line", line, len(weights), "The line from A to B", [f"{w:.0%}" for w in weights]),
    ]
    return Look(pictures, stage.begin(*imports, GRIDS) + begin + layers + more, {**numbers, "counts": counts})


def _by_layers(
    stage: Stage,
    asked: Mix,
    counts: Sequence[int],
    images: tuple[Chosen, Chosen],
    z: tuple[Sequence[Tensor], Sequence[Tensor]],
) -> tuple[list[Shown], str]:
    """For several k: the top k layers of a, the rest of b."""
    a, b = images
    pairs = list(zip(*z, strict=True))
    mixed = stage.run.decode([torch.cat([p if i < k else q for k in counts]) for i, (p, q) in enumerate(pairs)])
    chosen = counts.index(asked.layers)
    lines = (
        f"counts = {counts}  # how many top layers are a's; the rest are b's\n"
        "z = [torch.cat([p if i < k else q for k in counts]) for i, (p, q) in enumerate(zip(z_a, z_b, strict=True))]\n"
        "mixed = run.decode(z)\n"
        f'save_png(Path("mix.png"), image_grid(torch.cat([a, mixed[{chosen}, None], b]), 3))\n'
        f'save_png(Path("layers.png"), image_grid(mixed, {len(counts)}))\n'
    )
    top = "The top layer" if asked.layers == 1 else f"The top {asked.layers} layers"
    told = f"{top} of {a.told}, the others of {b.told}"
    labels = [f"{k} of A" for k in counts]
    return [
        sheet("mix", torch.cat([a.x, mixed[chosen, None], b.x]), 3, told, ("A", f"{asked.layers} of A", "B")),
        sheet("layers", mixed, len(counts), "Mixtures with more and more top layers of A", labels),
    ], lines
