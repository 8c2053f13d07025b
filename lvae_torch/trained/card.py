"""The model card of a bundle: model, training data, and measured numbers with the commands that measure them."""

import json

from lvae_torch.files import known_of
from lvae_torch.reporting.belonging import conditions, is_own
from lvae_torch.runs.checkpoint import versions
from lvae_torch.runs.folder import RunFolder
from lvae_torch.trained.run import TrainedRun

MEASURED = {
    "reconstruction": ("-ELBO", "nelbo"),
    "likelihood": ("-log p(x), importance-weighted bound", "nll_bound"),
}
"""Modes whose results belong on the card: a label, and the key of the number in the results."""


def model_card(run: TrainedRun, name: str, license_: str, folder: RunFolder | None, is_rounded: bool = False) -> str:
    """The card as Markdown, with front matter for model hubs.

    Args:
        folder: the run's, which may hold results; None if the weights lie where no run does.
        is_rounded: whether the bundle has the weights in bfloat16.
    """
    on, section = run.trained_on, run.settings.model
    latents = ", ".join("x".join(map(str, shape)) for shape in run.latent_shapes) or "none"
    n_parameters = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    channels, height, width = on.image_shape
    levels = f"{on.n_levels} levels" if on.n_levels else "values without levels"
    rows = [
        ("family", f"`{section.family}`"),
        ("parameters", f"{n_parameters:,}"),
        ("latents, top first", latents),
        ("images", f"{channels} x {height} x {width}, {levels}"),
        *([("classes", ", ".join(map(str, on.classes)))] if on.classes else []),
        ("trained on", f"`{on.dataset}`, content hash `{on.content_hash}`"),
        ("training", f"{run.step:,} steps of {run.settings.train.batch_size} images, seed {run.settings.run.seed}"),
        ("weights", "moving average" if run.is_averaged else "as training left them"),
        *([("stored in", "bfloat16, but for vectors; used in float32")] if is_rounded else []),
        ("licence", license_),
        ("written by", ", ".join(f"{program} {version}" for program, version in versions().items())),
    ]
    labels = ", labels=0" if on.classes else ""
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    return "\n\n".join(
        [
            f"---\nlibrary_name: lvae_torch\nlicense: {json.dumps(license_)}\ntags: [variational-autoencoder]\n---",
            f"# {name}",
            f"A hierarchical variational autoencoder, trained with lvae_torch.\n\n| | |\n| --- | --- |\n{table}",
            "## Measured\n\n" + _measured(run, folder, is_rounded),
            "## Use\n\n"
            f"    lvae synthesize {name} --mode generation\n\n"
            "with the path of this folder in place of its name, or in Python:\n\n"
            "    import lvae_torch\n\n"
            f'    run = lvae_torch.load_run("{name}")\n'
            f"    samples = run.sample(16{labels})\n",
        ]
    )


def _measured(run: TrainedRun, folder: RunFolder | None, is_rounded: bool) -> str:
    """A table of the run's results that were measured with these weights, before they were rounded if they are."""
    rows = []
    for mode, (what, key) in MEASURED.items():
        found = known_of(folder.synthesis(mode) / "metrics.json") if folder else {}
        if not found or not is_own(found, {"step": run.step, "weights": "ema" if run.is_averaged else "raw"}):
            continue
        samples = f", {found['iw_samples']} samples" if "iw_samples" in found else ""
        images, *how = conditions(found)
        on = ", ".join([f"{images} of {found['split']}", *how])
        value = "not finite" if found[key] is None else f"{found[key]:.2f} nats per image"
        rows.append(f"| {what}{samples} | {value} | {on} | `synthesize --mode {mode}` |")
    if not rows:
        return "Nothing yet with these weights: run `synthesize --mode reconstruction` before `export`."
    before = "With the weights before they were rounded:\n\n" if is_rounded else ""
    return before + "\n".join(["| | value | on | command |", "| --- | --- | --- | --- |", *rows])
