"""Small sweeps: two cfgs of which one needs the other, and results as a table has them."""

from pathlib import Path

import numpy as np
import small

from lvae_torch.reporting.comparison import Result


def cfgs(folder: Path) -> list[Path]:
    """Two runs, the second of which begins with the weights of the first."""
    small.write_dump(folder / "dumps")
    paths = []
    for name, extra in (("b", "initial_run = a\n"), ("a", "")):
        path = folder / f"{name}.cfg"
        path.write_text(small.CFG.replace("name = small", f"name = {name}").replace("[train]\n", f"[train]\n{extra}"))
        paths.append(path)
    return paths


def options(folder: Path) -> list[str]:
    return [f"--set={override}" for override in small.override_list(folder, {})]


def results() -> list[Result]:
    """A deep run with its bound, a shallow one without, and one that has not been evaluated."""
    curve = (np.array([]), np.array([]))
    evaluation = {"step": 7, "nelbo": 90.1, "nll": 70.0, "kl": 20.1}
    deep = evaluation | {"kl/00": 0.1 + 0.2, "kl/01": 19.8, "informative_units/00": 1.0, "informative_units/01": 8.0}
    bound = {"step": 7, "iw_samples": 50, "n_images": 9, "nll_bound": 85.3, "standard_error": 1 / 3, "content": "abc"}
    told = {"seed of the run": 3, "precision": "bfloat16"}
    return [
        Result("set_lvae_2", deep, bound | {"seed": 0}, {"nelbo": 91.25}, curve, told),
        Result("set_lvae_1", evaluation | {"kl/00": 20.1, "informative_units/00": 3.0}, {}, {}, curve),
        Result("set_vae_1", {}, {}, {}, curve),
    ]
