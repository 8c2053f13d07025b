"""``make demo``: data, training, likelihood and pictures, in minutes on a CPU, with the ordinary commands' own code."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_scripts.recipes import make
from lvae_torch.baseline import per_pixel_mean_nll
from lvae_torch.cli import main
from lvae_torch.data.dump import Dump
from lvae_torch.errors import DataError
from lvae_torch.files import read_json
from lvae_torch.hparams import Settings, load
from lvae_torch.reporting.console import table
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train
from lvae_torch.wiring import open_dump, run_folder

CFG = Path(__file__).resolve().parents[1] / "egs" / "quickstart.cfg"
N_IMAGES = 12_000
N_WEIGHTED = 200
VARIANT: dict[str, Any] = {"objects": "1", "canvas": 28}
MODES = ("reconstruction", "generation", "layer_inspection", "likelihood")


def command(argv: Sequence[str]) -> None:
    """Everything from nothing; repeated, it continues or shows what is there."""
    parser = argparse.ArgumentParser(prog="python -m lvae_torch.demo", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="SECTION.KEY=VALUE", help="instead of egs/quickstart.cfg's")
    argv = parser.parse_args(argv).overrides
    settings = load(CFG, argv)
    dump = _dump(settings)
    train(settings)
    synthesize(settings, MODES[:-1])
    synthesize(load(CFG, [*argv, f"synthesis.limit={N_WEIGHTED}"]), MODES[-1:])  # K passes: a part of the split will do
    print(_summary(settings, dump))


def _dump(settings: Settings) -> Dump:
    """The demo's images, made here if they are missing: procedural multi-dSprites, no download."""
    try:
        return open_dump(settings)
    except DataError:
        make("multi_dsprites", Path(settings.data.dumps), count=N_IMAGES, name=settings.data.dataset, **VARIANT)
        return open_dump(settings)


def _summary(settings: Settings, dump: Dump) -> str:
    folder = run_folder(settings)
    results = {mode: read_json(folder.synthesis(mode) / "metrics.json") for mode in MODES}
    test = dump.split(settings.data.val_split)
    baseline = per_pixel_mean_nll(dump.split(settings.data.train_split), test)
    nelbo, bound = results["reconstruction"]["nelbo"], results["likelihood"]
    rows = [
        ("test -ELBO", f"{nelbo:.2f} nats per image, {len(test):,} images"),
        ("per-pixel-mean model", f"{baseline:.2f} nats per image on the same images"),
        ("share of its score", f"{nelbo / baseline:.1%}"),
        (
            f"-log p(x), {bound['iw_samples']} samples",
            f"{bound['nll_bound']:.2f} nats on {bound['n_images']:,} of them",
        ),
        ("SSIM of reconstructions", f"{results['reconstruction']['ssim']:.4f}"),
        ("samples", str(folder.synthesis("generation") / "samples.png")),
        ("reconstructions", str(folder.synthesis("reconstruction") / "reconstructions.png")),
        ("what each layer decides", str(folder.synthesis("layer_inspection") / "layer_*.png")),
        ("curves", f"tensorboard --logdir {folder.tensorboard}"),
    ]
    return "\n" + table("What the demo learned", rows)


if __name__ == "__main__":
    main(command)
