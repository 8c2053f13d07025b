"""Layer inspection: shows what each latent layer decides, in one picture per layer.

In a row, all columns share one draw of the layers above, the layer itself is drawn anew for each column, and the
layers below stay at their prior mean. So only this layer makes the columns differ. Each row of a class-conditional
model is of one class, as in generation.
"""

import torch

from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.models.contract import Source, of_classes
from lvae_torch.models.sources import by_layer, prior_mean, prior_sample, shared
from lvae_torch.synthesis.session import Session, n_rounds
from lvae_torch.synthesis.showing import save_shown
from lvae_torch.synthesis.temperatures import per_layer


@torch.no_grad()
def run(session: Session) -> dict[str, object]:
    """Write ``layer_00.png`` (the top layer) and so on, each with ``columns`` x ``columns`` images."""
    options, shapes = session.options, session.latent_shapes
    temperatures = per_layer(options.temperature, len(shapes))
    for i, _ in n_rounds(session, len(shapes), 1):
        rows = []
        for row in range(options.columns):
            seed_everything("layer_inspection", options.seed, i, row)
            source = varying_only(i, len(shapes), prior_sample(temperatures))
            first = row * options.columns
            told = of_classes(source, session.chosen(range(first, first + options.columns)))
            rows.append(session.picture_of(session.model(None, told, n=options.columns).likelihood))
        save_shown(session.out / f"layer_{i:02d}.png", torch.cat(rows), options.columns)
    return {
        "layers": [{"picture": f"layer_{i:02d}.png", "latent_shape": list(shape)} for i, shape in enumerate(shapes)]
    }


def varying_only(i: int, n_layers: int, draw: Source) -> Source:
    """A source for one row: it shares one draw above layer i, draws layer i for each image, and is at the prior mean
    below."""
    return by_layer([shared(draw)] * i + [draw] + [prior_mean] * (n_layers - i - 1))
