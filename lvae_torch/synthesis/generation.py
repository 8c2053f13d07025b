"""Generation: images from the prior, at a temperature per layer."""

import torch

from lvae_torch.models.sources import prior_sample
from lvae_torch.reporting.grids import save_png, to_uint8
from lvae_torch.seeding import seed_everything
from lvae_torch.synthesis.picture_parts import first_images_grid
from lvae_torch.synthesis.session import Session, n_rounds
from lvae_torch.synthesis.singles import save_singles
from lvae_torch.synthesis.temperatures import per_layer


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """Images as uint8 (n, H, W, C) arrays in parts, and the first of them as a grid."""
    options = session.options
    temperatures = per_layer(options.temperature, len(session.model.latent_shapes()))
    size = options.batch_size
    parts = session.parts(0, "temperature", "draw", "n_images", "batch_size")  # quick: always made anew
    for j, count in n_rounds(session, options.n_images, size):
        seed_everything("generation", options.seed, j)
        shown = session.picture_of(session.model(None, prior_sample(temperatures), n=count).likelihood)
        parts.write(j, {"images": to_uint8(shown)})
        if options.save_singles:
            save_singles(session.out / "singles", range(j * size, j * size + count), shown)
    session.processes.barrier()
    if session.processes.is_main:
        save_png(session.out / "samples.png", first_images_grid(parts, options.n_images, options.columns))
    return {"n_images": options.n_images, "temperatures": list(temperatures), "draw": options.draw}
