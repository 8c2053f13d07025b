"""Every checkpoint that an original program wrote: imported, used in every mode, exported, and trained on as there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extractors import Tiny, script
from golden_cases import arrays_of, double
from other_programs import import_it, write_vdvae
from torch.testing import assert_close

import lvae_torch
from lvae_torch.cfg.expressions import evaluate
from lvae_torch.cfg.reader import read_file
from lvae_torch.compression.compress.__main__ import command as compress
from lvae_torch.compression.decompress.__main__ import command as decompress
from lvae_torch.data.dump import Dump, Layout
from lvae_torch.data.order import spread
from lvae_torch.data.writing import DumpWriter
from lvae_torch.elbo.objective import Objective
from lvae_torch.export import command as export
from lvae_torch.files import read_json
from lvae_torch.hparams import Settings, load
from lvae_torch.info import command as info
from lvae_torch.interop.efficient_vdvae_jax import our_name
from lvae_torch.models.sources import given_noise
from lvae_torch.runs.checkpoint import load_newest
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.show import command as show
from lvae_torch.synthesis.modes import MODES
from lvae_torch.synthesize import command as synthesize
from lvae_torch.train import train
from lvae_torch.training.ema import Ema
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import learning_rate, make_optimizer
from lvae_torch.training.step import TrainStep

TESTS = Path(__file__).resolve().parents[1]
SHARED = TESTS.parents[1] / "shared" / "golden"
JAX = SHARED / "efficient_vdvae_jax"
NEEDED = "needs ../shared, which is not part of the repository"


def recorded(path: Path, dump: str, shape: tuple[int, int, int], n_levels: int) -> Any:
    """A folder, the name of the dump that its run asks for, and that dump's form."""
    return pytest.param(path, dump, Layout(shape, n_levels), id=path.name, marks=marks_of(path))


def marks_of(path: Path) -> list[pytest.MarkDecorator]:
    return [] if path.is_dir() else [pytest.mark.skip(NEEDED)]


JAX_RUNS = [pytest.param(JAX / name, id=name, marks=marks_of(JAX)) for name in ("model_a_color", "model_b_mnist")]


RECORDED = [
    recorded(SHARED / "vdvae" / "checkpoint_small", "cifar10_vdvae", (3, 32, 32), 256),
    recorded(JAX / "model_a_color", "cifar-10_16", (3, 16, 16), 256),
    recorded(JAX / "model_b_mnist", "mnist", (1, 28, 28), 256),
    recorded(TESTS / "golden" / "ladder_vae_pytorch" / "a", "binarized_mnist", (1, 28, 28), 2),
    recorded(TESTS / "golden" / "ladder_vae_pytorch" / "b", "cifar10", (3, 32, 32), 256),
]
FEW = [
    *("--set=run.device=cpu", "--set=synthesis.n_images=4", "--set=synthesis.iw_samples=2", "--set=synthesis.pairs=2"),
    *("--set=synthesis.batch_size=4", "--set=synthesis.columns=4", "--set=synthesis.limit=6"),
]


def write_noise(dumps: Path, name: str, layout: Layout) -> None:
    rng = np.random.default_rng(0)
    channels, height, width = layout.image_shape
    with DumpWriter(dumps, name, layout, {}) as writer:
        for split, n in (("train", 64), ("valid", 8), ("test", 8)):
            writer.add(split, rng.integers(0, layout.n_levels, (n, height, width, channels), dtype=np.uint8))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("source", "dump", "layout"), RECORDED)
def test_the_whole_way_of_a_recorded_run(
    tmp_path: Path, source: Path, dump: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every mode, info and show, the bundle and its modes, compression without loss, and two more steps."""
    monkeypatch.chdir(tmp_path)  # what a bundle makes lies below the working folder
    run = import_it(tmp_path, source)
    synthesize([str(run), "--mode", "generation", *FEW])  # no dataset is needed
    write_noise(tmp_path / "dumps", dump, layout)
    few = [*FEW, f"--set=synthesis.extractor={str(script(tmp_path / 'tiny.pt', Tiny()))!r}"]
    for mode in MODES:
        synthesize([str(run), "--mode", mode, *few])
        assert read_json(run / "synthesis" / mode / "metrics.json")["step"] == read_json(run / "status.json")["step"]
    info([str(run / "hparams.cfg")])
    show([str(run)])
    export([str(run), "bundle"])
    synthesize(["bundle", "--mode", "generation", *FEW])  # without the dataset
    for mode in MODES:
        synthesize(["bundle", "--mode", mode, *few, "--set=data.dumps=dumps"])
        assert (tmp_path / "runs" / "bundle" / "synthesis" / mode / "metrics.json").is_file()
    drawn = [lvae_torch.load_run(where, device="cpu").sample(3, seed=1) for where in (run, tmp_path / "bundle")]
    assert torch.equal(*drawn)
    pytest.importorskip("constriction", reason="has no wheels for this machine")
    check_compression(tmp_path, run)
    check_that_it_goes_on(run)


def check_compression(folder: Path, run: Path) -> None:
    """Also by the bundle alone; what comes back is what the model sees, after binarization."""
    compress([str(run), "test", "test.lvz", "--limit", "3"])
    decompress(["--run", "bundle", "test.lvz", "dumps/again", "--dump"])
    seen = lvae_torch.load_run(run, device="cpu")
    wanted = seen.images("test", at=spread(8, 3).tolist()) * (seen.trained_on.n_levels - 1)
    again = Dump.open(folder / "dumps", "again").split("decompressed").gather(np.arange(3))
    assert torch.equal(again, wanted.round().to(again.dtype).permute(0, 2, 3, 1))


def check_that_it_goes_on(run: Path) -> None:
    begun = read_json(run / "status.json")["step"]
    few = [f"train.steps={begun + 2}", "train.batch_size=4", "val.every=100", "val.images=0", "data.limit_val=4"]
    train(load(run / "hparams.cfg", few))
    assert read_json(run / "status.json")["step"] == begun + 2


def test_a_single_file_brings_the_settings_beside_it(tmp_path: Path) -> None:
    """And no others: a log of another run may lie in the same folder of downloads."""
    write_vdvae(tmp_path / "theirs")
    other = (tmp_path / "theirs" / "iter-140-log.jsonl").read_text().replace('"value": 4}', '"value": 6}')
    (tmp_path / "theirs" / "imagenet32-iter-1700000-log.jsonl").write_text(other)
    run = import_it(tmp_path, tmp_path / "theirs" / "iter-140-model-ema.th")
    assert read_json(run / "status.json")["step"] == 140


def test_a_run_without_a_history_is_analysed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_vdvae(tmp_path / "theirs")
    write_noise(tmp_path / "dumps", "cifar10_vdvae", Layout((3, 32, 32), 256))
    run = import_it(tmp_path, tmp_path / "theirs")
    synthesize([str(run), "--mode", "analysis", *FEW])
    metrics = read_json(run / "synthesis" / "analysis" / "metrics.json")
    assert any("no metrics.jsonl" in note for note in metrics["notes"])
    assert (run / "synthesis" / "analysis" / "kl_per_layer.png").is_file()


@pytest.mark.parametrize("folder", JAX_RUNS)
def test_a_run_of_the_jax_half_goes_on_as_it_would_have_there(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three more steps from what ``lvae import --exact`` wrote, at our own rates and betas."""
    arrays = arrays_of(folder / "vectors.npz")
    run = import_it(tmp_path, folder, "taken", "--exact")
    settings, checkpoint = load(run / "hparams.cfg"), load_newest(CheckpointStore(run / "checkpoints"), print)
    assert checkpoint is not None and checkpoint.step == int(arrays["checkpoint_step"])
    on = checkpoint.about.trained_on
    model = settings.model.make(on.image_shape, on.n_levels, reference=True)  # type: ignore[call-arg]
    step = step_in_double(settings, model)
    step.restore(checkpoint)
    blocks = list(evaluate(read_file(next(folder.glob("logs-*/*.cfg")))["model", "up_n_blocks_per_res"].text))
    names = [str(our_name(path.removeprefix("params/"), blocks)) for path in arrays["param_names"].tolist()]
    begun = {name: weight.double() for name, weight in checkpoint.model.items()}
    averaged = {name: weight.double() for name, weight in (checkpoint.ema or {}).items()}
    for t, at in enumerate(arrays["train_global_step"].tolist()):
        source = given_noise([double(arrays[f"train{t}_eps_{i:02}"]) for i in range(int(arrays["n_layers"]))])
        monkeypatch.setattr("lvae_torch.training.step.posterior_sample", source)
        seen = double(arrays[f"train_input_{t}"])
        x = seen[:, :, 2:30, 2:30] if on.n_levels == 2 else torch.round((seen + 1) * 127.5) / 255
        with torch.no_grad():
            loss, _ = step.objective(x, model(x, source), at)
        assert_close(loss, double(arrays["train_total_loss"][t]), rtol=1e-6, atol=1e-8)
        assert step.rate_at(at) == pytest.approx(float(arrays["train_lr"][t]), rel=1e-6)
        step(x, at)
        assert step.ema is not None
        for of, before, key in ((model, begun, "param"), (step.ema.model, averaged, "ema")):
            moved = torch.stack([(of.get_parameter(name) - before[name]).norm() for name in names])
            assert_close(moved.detach(), double(arrays[f"train{t}_{key}_delta_norm_after"]), rtol=1e-5, atol=1e-8)


def step_in_double(settings: Settings, model: Any) -> TrainStep:
    """A run's step, of images as they are."""
    model.double().to(memory_format=torch.channels_last).train()  # as the run has it
    flat, section = FlatParameters(model), settings.optimizer
    return TrainStep(
        section=section, bare=model, flat=flat, ema=Ema(model, settings.train.ema_decay, is_aged=True),
        objective=Objective(settings.loss, model.image_shape),
        optimizer=make_optimizer(section, flat, model.block_weights()),
        learning_rate=learning_rate(section, int(settings.train.steps)),
        meter=Meter(len(model.latent_shapes()), torch.device("cpu")), preprocess=lambda raw: raw,
    )  # fmt: skip
