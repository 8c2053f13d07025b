"""What the page must know of the run before it asks for anything."""

from typing import Any

from lvae_torch.explore.stage import Stage
from lvae_torch.explore.views.latents import has_plane
from lvae_torch.reporting.grids import how_shown
from lvae_torch.synthesis.codes import code_grid


def describe(stage: Stage) -> dict[str, Any]:
    """The run, its layers and its images, as JSON."""
    run = stage.run
    channels, height, width = run.model.image_shape
    is_code = code_grid(run.model) is not None
    remarks = [run.settings.model.remark, how_shown(run.model.image_shape)]
    if is_code and run.prior is None:
        remarks.append("Codes come from the uniform prior; --set synthesis.prior_run=RUN takes a trained one.")
    if not (splits := dict(stage.splits)):
        remarks.append(f"Images of the dataset cannot be chosen: {stage.without_images}")
    return {
        **run.identity,
        "family": run.settings.model.family,
        "device": str(run.device),
        "parameters": sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        "prior": dict(run.prior.identity) if run.prior else None,
        "classes": list(run.classes),
        "layers": [list(shape) for shape in run.latent_shapes],
        "is_code": is_code,
        "image": [channels, height, width],
        "canvas": list(run.model.canvas),
        "has_bits": run.model.n_dims is not None,
        "splits": splits,
        "most_images": stage.most_images,
        "are_points": stage.are_points,
        "has_plane": has_plane(stage),
        "takes_pictures": channels in (1, 3) and run.trained_on.n_levels > 0 and not stage.are_points,
        "remarks": [remark for remark in remarks if remark],
    }
