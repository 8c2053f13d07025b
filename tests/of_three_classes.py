"""A dump of images of three classes, and settings of class-conditional models, that tests share."""

from pathlib import Path
from typing import Any

import numpy as np
import small

from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.hparams.load import load_text

NAMES = ("left", "right", "top")
N_TRAIN, N_TEST = 40, 17
VERY_DEEP = """
family = efficient_vdvae
scales = [1, 2]
bottom_up = [[1], [1]]
top_down = [[2], [1]]
widths = 4
kernels = 3
z_channels = 2
likelihood = bernoulli
"""


def write_dump(dumps: Path, name: str = "small", shift: int = 0, columns: int = 0, names: Any = NAMES) -> None:
    """Images of three classes; labels are the same with other ``shift``s, but for their names."""
    rng = np.random.default_rng(0)
    said = {"label_names": list(names)} if names else {}
    with DumpWriter(dumps, name, Layout(small.IMAGE_SHAPE, 2), {"source": "made by a test", **said}, 1000) as writer:
        for split, n in (("train", N_TRAIN), ("test", N_TEST)):
            images = rng.integers(0, 2, (n, 8, 8, 1)).astype(np.uint8)
            labels = rng.integers(0, 3, n) + shift
            labels[:3] = np.arange(3) + shift
            writer.add(split, images, np.stack([labels] * columns, axis=1) if columns else labels)


def settings(folder: Path, **overrides: Any) -> Any:
    return small.settings(folder, **{"model__class_embedding": "every_layer", "train__ema_decay": 0.5, **overrides})


def very_deep(folder: Path, **overrides: Any) -> Any:
    head, _, rest = small.CFG.partition("family")
    text = head + VERY_DEEP + rest[rest.index("[loss]") :]
    changes = {"run__name": "deep", "model__class_embedding": "top", "train__ema_decay": 0.5, **overrides}
    return load_text(text, "deep.cfg", small.override_list(folder, changes))


MAKERS = {"small": settings, "deep": very_deep}
