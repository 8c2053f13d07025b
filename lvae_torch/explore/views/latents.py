"""Latents: a channel of a layer is moved, everywhere or at one place, and the image follows.

The base's latents are taken apart into the standard normal noise of which they are the prior's draws. One entry of it
is replaced, and the layers below keep their noise, so that they follow as their priors do.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lvae_torch.explore.look import Look, Shown, plane, sheet
from lvae_torch.explore.requests import Latents, Move, OfSeed
from lvae_torch.explore.stage import RefusedError, Stage
from lvae_torch.explore.views.reconstruction import GRIDS, channels_of
from lvae_torch.reporting.plane import Clouds

SWEEP = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
PLANE = (-4.0, -4.0, 4.0, 4.0)  # of standard normal noise


def latents(stage: Stage, asked: Latents) -> Look:
    """The image before and after, and for several values of the last move.

    Raises:
        RefusedError: if there is no such image, layer, channel or place.
    """
    run = stage.run
    for move in asked.moves:
        _check(stage, move)
    z, lines, told = _base(stage, asked)
    noise = run.noise(z)
    lines += "noise = run.noise(z)\n"
    for move in asked.moves:
        where = _where(move)
        noise[move.layer][where] = move.value
        lines += f"noise[{move.layer}][{_told(where)}] = {move.value!r}\n"
    moved = run.at_noise(noise)
    before, after = run.decode(z), run.decode(moved)
    lines += "before, after = run.decode(z), run.decode(run.at_noise(noise))\n"
    last = asked.moves[-1]
    here = _where(last)
    numbers = {
        "base": told,
        "before": float(z[last.layer][here].float().mean()),
        "after": float(moved[last.layer][here].float().mean()),
        "is_code": not z[last.layer].is_floating_point(),
        **_channels(stage, before, last.layer),
    }
    pictures, more = _points(stage, before, after) if stage.are_points else _images(stage, noise, last, before, after)
    imports = ["from lvae_torch.reporting.plane import plane_picture"] if has_plane(stage) or stage.are_points else []
    if has_plane(stage):
        shown, line = _plane(stage, noise)
        pictures, more = [*pictures, shown], more + line
    return Look(pictures, stage.begin("import torch", GRIDS, *imports) + lines + more, numbers)


def has_plane(stage: Stage) -> bool:
    """Whether the latents are points of a plane."""
    return stage.run.latent_shapes == ((2,),)


def _channels(stage: Stage, before: Tensor, layer: int) -> dict[str, Any]:
    """What each channel of the layer tells of the image, so that one sees which are worth moving."""
    if stage.are_points or has_plane(stage) or stage.layer(layer)[0] == 1:
        return {}
    return channels_of(stage.run.kl_of_units(stage.run.to_levels(before), seed=0), layer)


def _check(stage: Stage, move: Move) -> None:
    shape = stage.layer(move.layer)
    if move.channel >= shape[0]:
        raise RefusedError(f"There is no channel {move.channel}: layer {move.layer} has channels 0 to {shape[0] - 1}.")
    if move.at is None:
        return
    if len(shape) == 1:
        raise RefusedError(f"Layer {move.layer} is a vector without places; leave the place out.")
    if move.at[0] >= shape[1] or move.at[1] >= shape[2]:
        raise RefusedError(f"There is no place {move.at}: the map of layer {move.layer} is {shape[1]} x {shape[2]}.")


def _where(move: Move) -> tuple[slice | int, ...]:
    """Index of the entries that a move replaces."""
    return (slice(None), move.channel, *(move.at or ()))


def _told(where: Sequence[slice | int]) -> str:
    return ", ".join(":" if isinstance(part, slice) else str(part) for part in where)


def _base(stage: Stage, asked: Latents) -> tuple[list[Tensor], str, str]:
    """The latents to begin with, the line that makes them, and what they are."""
    if isinstance(asked.base, OfSeed):
        temperature, seed = stage.temperature(asked.temperature), asked.base.seed
        z = stage.run.draw(1, temperature, seed)
        return z, f"z = run.draw(1, temperature={temperature!r}, seed={seed})\n", f"a sample, seed {seed}"
    chosen = stage.image(asked.base)
    return stage.run.encode(chosen.x), f"z = run.encode({chosen.line})\n", chosen.told


def _images(
    stage: Stage, noise: Sequence[Tensor], last: Move, before: Tensor, after: Tensor
) -> tuple[list[Shown], str]:
    run, where = stage.run, _where(last)
    many = [layer.repeat(len(SWEEP), *[1] * (layer.ndim - 1)) for layer in noise]
    values = torch.tensor(SWEEP, dtype=many[last.layer].dtype, device=run.device)
    many[last.layer][where] = values.view(-1, *[1] * (many[last.layer][where].ndim - 1))
    swept = run.decode(run.at_noise(many))
    shape = ", ".join(["-1", *["1"] * (many[last.layer][where].ndim - 1)])
    lines = (
        'save_png(Path("latents.png"), image_grid(torch.cat([before, after, (after - before).abs()]), 3))\n'
        f"many = [layer.repeat({len(SWEEP)}, *[1] * (layer.ndim - 1)) for layer in noise]\n"
        f"values = torch.tensor({list(SWEEP)}, dtype=many[{last.layer}].dtype, device=run.device)\n"
        f"many[{last.layer}][{_told(where)}] = values.view({shape})\n"
        f'save_png(Path("sweep.png"), image_grid(run.decode(run.at_noise(many)), {len(SWEEP)}))\n'
    )
    place = "everywhere" if last.at is None else f"at row {last.at[0]}, column {last.at[1]}"
    told = f"Before, and with channel {last.channel} of layer {last.layer} at {last.value:+.2f} {place}; the difference"
    return [
        sheet(
            "latents", torch.cat([before, after, (after - before).abs()]), 3, told, ("before", "after", "difference")
        ),
        sheet(
            "sweep", swept, len(SWEEP), "The same from -3 to 3", [f"{value:+.0f}" if value else "0" for value in SWEEP]
        ),
    ], lines


def _points(stage: Stage, before: Tensor, after: Tensor) -> tuple[list[Shown], str]:
    clouds: Clouds = {"data": stage.behind, "before": before, "after": after}
    shown = plane("latents", clouds, stage.bounds, "The mean of p(x|z), before and after")
    lines = (
        f'clouds = {{"data": {stage.behind_line}, "before": before, "after": after}}\n'
        f'save_png(Path("latents.png"), plane_picture(clouds, {stage.bounds}))\n'
    )
    return [shown], lines


def _plane(stage: Stage, noise: Sequence[Tensor]) -> tuple[Shown, str]:
    """Where z is among the encodings of the data, or among draws of the prior."""
    name, line = stage.coded_told
    clouds: Clouds = {name: stage.coded, "z": noise[0]}
    lines = (
        f'clouds = {{"{name}": {line}, "z": noise[0]}}\nsave_png(Path("plane.png"), plane_picture(clouds, {PLANE}))\n'
    )
    return plane("plane", clouds, PLANE, "The plane of z, in standard deviations of the prior"), lines
