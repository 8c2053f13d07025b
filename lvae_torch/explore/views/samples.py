"""Samples: images from the prior, at a temperature per layer; or all with the top layers of one of them."""

import math
from typing import Any

from torch import Tensor

from lvae_torch.explore.look import Look, plane, sheet
from lvae_torch.explore.requests import Samples
from lvae_torch.explore.stage import RefusedError, Stage


def samples(stage: Stage, asked: Samples) -> Look:
    """A grid of images, or a cloud of points.

    Raises:
        RefusedError: if there are too many, or what is asked for is not of this run.
    """
    run, n, seed, show = stage.run, asked.n, asked.seed, asked.show
    if n > stage.most_images:
        raise RefusedError(f"{n} images are too many: at most {stage.most_images} of this run's fit into one picture.")
    temperature: Any = stage.temperature(asked.temperature)
    given, lines = _given(stage, asked, temperature)
    x = run.sample(n, temperature, show, seed, given)
    more = ", given=top" if given else ""
    lines += f"x = run.sample({n}, temperature={temperature!r}, show={show!r}, seed={seed}{more})\n"
    told = f"{n} samples, seed {seed}"
    if asked.keep:
        top = "the top layer" if asked.keep.layers == 1 else f"the top {asked.keep.layers} layers"
        told += f", all with {top} of sample {asked.keep.sample}"
    if stage.are_points:
        lines += f'picture = plane_picture({{"data": {stage.behind_line}, "samples": x}}, {stage.bounds})\n'
        shown = plane("samples", {"data": stage.behind, "samples": x}, stage.bounds, told)
        imports = ("from lvae_torch.reporting.plane import plane_picture",)
    else:
        columns = math.ceil(math.sqrt(n))
        lines += f"picture = image_grid(x, {columns})\n"
        shown = sheet("samples", x, columns, told, [f"sample {k}" for k in range(n)])
        imports = ("from lvae_torch.reporting.grids import image_grid",)
    lines += 'save_png(Path("samples.png"), picture)\n'
    return Look([shown], stage.begin("from lvae_torch.reporting.grids import save_png", *imports) + lines)


def _given(stage: Stage, asked: Samples, temperature: Any) -> tuple[list[Tensor], str]:
    """The latents that all images share, and the lines that make them."""
    if (keep := asked.keep) is None or keep.layers == 0:
        return [], ""
    stage.layer(keep.layers - 1)
    if keep.sample >= asked.n:
        raise RefusedError(f"There is no sample {keep.sample}: this picture has samples 0 to {asked.n - 1}.")
    z = stage.run.draw(1, temperature, asked.seed, first=keep.sample)
    line = (
        f"z = run.draw(1, temperature={temperature!r}, seed={asked.seed}, first={keep.sample})\n"
        f"top = z[:{keep.layers}]  # the top layers of sample {keep.sample}\n"
    )
    return z[: keep.layers], line
