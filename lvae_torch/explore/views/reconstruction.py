"""Reconstruction: an image, what each further layer knows of it, and where on it each layer's KL lies."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lvae_torch.data.order import spread
from lvae_torch.elbo.bounds import bits_entry
from lvae_torch.explore.look import Look, Shown, plane, sheet
from lvae_torch.explore.requests import Reconstruction
from lvae_torch.explore.stage import Chosen, Stage
from lvae_torch.reporting.heat import heat_picture, map_of, on_image
from lvae_torch.reporting.plane import Clouds

MOST_STEPS = 12  # of a progressive reconstruction; deeper models show as many values of k, evenly spread
N_DRAWS = 200  # reconstructions of a point

GRIDS = "from lvae_torch.reporting.grids import image_grid, save_png"


def reconstruction(stage: Stage, asked: Reconstruction) -> Look:
    """The progressive reconstruction and the heat map, with the terms of the ELBO.

    Raises:
        RefusedError: if there is no such image or layer.
    """
    if asked.heat is not None:
        stage.layer(asked.heat)
    temperature = stage.temperature(asked.temperature)
    chosen = stage.image(asked.image)
    kl = stage.run.kl_of_units(chosen.x, seed=asked.seed)
    numbers = {**_terms(stage, chosen.x, asked.seed), "image": chosen.told, **channels_of(kl, asked.heat)}
    if stage.are_points:
        return _of_point(stage, asked, chosen, numbers)
    pictures, lines = _ladder(stage, asked, chosen, temperature)
    heat, more = _heat(stage, asked, chosen, kl)
    imports = ("import torch", GRIDS, "from lvae_torch.reporting.heat import heat_picture, map_of, on_image")
    end = f"print(run.elbo(x, seed={asked.seed}))\n"
    return Look([*pictures, heat], stage.begin(*imports) + lines + more + end, numbers)


def _terms(stage: Stage, x: Tensor, seed: int) -> dict[str, Any]:
    """The ELBO of the image and its parts, in nats, and in bits per dimension where these are defined."""
    terms = stage.run.elbo(x, seed=seed)
    elbo, nll, kl = float(terms.elbo[0]), float(terms.nll[0]), terms.kl[0].tolist()
    return {"elbo": elbo, "nll": nll, "kl": kl, **bits_entry("bits_per_dim", -elbo, stage.run.model.n_dims)}


def channels_of(kl: Sequence[Tensor], layer: int | None) -> dict[str, Any]:
    """KL of each channel of the chosen layer, nats, of one image."""
    if layer is None:
        return {}
    return {"channels": kl[layer][0].flatten(1).sum(dim=1).tolist() if kl[layer].ndim > 2 else kl[layer][0].tolist()}


def known_layers(n_layers: int) -> list[int]:
    """The values of k that are shown: 0 for nothing but the prior, then up to all layers."""
    return [0, *(int(i) + 1 for i in spread(n_layers, MOST_STEPS))]


def _ladder(stage: Stage, asked: Reconstruction, chosen: Chosen, temperature: Any) -> tuple[list[Shown], str]:
    """The image and its reconstruction, and one with the top k layers of the image and the rest from the prior."""
    run, seed, known = stage.run, asked.seed, known_layers(stage.n_layers)
    z = run.encode(chosen.x, draw=True, seed=seed)
    steps = [run.sample(1, temperature, seed=seed, given=z[:k]) for k in known]
    lines = (
        f"x = {chosen.line}\n"
        f"z = run.encode(x, draw=True, seed={seed})\n"
        f"known = {known}  # how many top layers are the image's; the rest is drawn from the prior\n"
        f"steps = [run.sample(1, temperature={temperature!r}, seed={seed}, given=z[:k]) for k in known]\n"
        'save_png(Path("reconstruction.png"), image_grid(torch.cat([x, steps[-1]]), 2))\n'
        f'save_png(Path("progressive.png"), image_grid(torch.cat(steps), {len(known)}))\n'
    )
    pair = sheet(
        "reconstruction",
        torch.cat([chosen.x, steps[-1]]),
        2,
        f"{chosen.told}, beside its reconstruction",
        ("image", "reconstruction"),
    )
    labels = ["none" if k == 0 else "all" if k == stage.n_layers else f"top {k}" for k in known]
    told = "Reconstructions that know more and more layers of the image, from none to all"
    return [pair, sheet("progressive", torch.cat(steps), len(known), told, labels)], lines


def _heat(stage: Stage, asked: Reconstruction, chosen: Chosen, kl: Sequence[Tensor]) -> tuple[Shown, str]:
    run = stage.run
    canvas, size = run.model.canvas, run.model.image_shape[1:]
    layers = range(stage.n_layers) if asked.heat is None else [asked.heat]
    heat = torch.stack([on_image(map_of(kl[i][0]), canvas, size) for i in layers]).sum(dim=0)
    which = "kl" if asked.heat is None else f"kl[{asked.heat}:{asked.heat + 1}]"
    lines = (
        f"kl = run.kl_of_units(x, seed={asked.seed})  # nats\n"
        f"maps = [on_image(map_of(layer[0]), run.model.canvas, run.model.image_shape[1:]) for layer in {which}]\n"
        'save_png(Path("heat.png"), heat_picture(x[0], torch.stack(maps).sum(dim=0)))\n'
    )
    told = "all layers" if asked.heat is None else f"layer {asked.heat}"
    return Shown("heat", heat_picture(chosen.x[0], heat), f"KL of {told} over the image; bright is much"), lines


def _of_point(stage: Stage, asked: Reconstruction, chosen: Chosen, numbers: dict[str, Any]) -> Look:
    """Where a point is reconstructed: draws of x for draws of z."""
    run, seed = stage.run, asked.seed
    drawn = run.reconstruct(chosen.x.expand(N_DRAWS, -1, -1, -1), show="sample", seed=seed)
    mean = run.reconstruct(chosen.x, draw=False)
    clouds: Clouds = {"data": stage.behind, "reconstructions": drawn, "at the mean of q": mean, "x": chosen.x}
    shown = plane("reconstruction", clouds, stage.bounds, f"{chosen.told}, and {N_DRAWS} reconstructions of it")
    lines = (
        f"x = {chosen.line}\n"
        f'drawn = run.reconstruct(x.expand({N_DRAWS}, -1, -1, -1), show="sample", seed={seed})\n'
        "mean = run.reconstruct(x, draw=False)\n"
        f'clouds = {{"data": {stage.behind_line}, "reconstructions": drawn, "at the mean of q": mean, "x": x}}\n'
        f'save_png(Path("reconstruction.png"), plane_picture(clouds, {stage.bounds}))\n'
        f"print(run.elbo(x, seed={seed}))\n"
    )
    imports = (
        "from lvae_torch.reporting.grids import save_png",
        "from lvae_torch.reporting.plane import plane_picture",
    )
    return Look([shown], stage.begin("import torch", *imports) + lines, numbers)
