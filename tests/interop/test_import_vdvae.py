"""Checkpoints of openai/vdvae become runs of ours: to the bit, whatever files are called, and without running them."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import arrays_of, double
from other_programs import VDVAE, checkpoint_in, import_it, vdvae_model, vdvae_state, write_vdvae
from torch import Tensor
from torch.testing import assert_close

from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import read_json
from lvae_torch.hparams import load
from lvae_torch.interop import vdvae_run
from lvae_torch.interop.vdvae import from_reference, our_name
from lvae_torch.interop.vdvae_presets import PRESETS
from lvae_torch.models.sources import given_noise
from lvae_torch.runs.checkpoint import load_newest
from lvae_torch.runs.checkpoints import CheckpointStore
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train
from lvae_torch.training.ema import Ema
from lvae_torch.training.fine_tuning import freeze
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.meter import Meter
from lvae_torch.training.optimization import check_moments, make_optimizer
from lvae_torch.training.step import TrainStep

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "vdvae" / "checkpoint_small"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs ../shared, which is not part of the repository")


def same_weights(state: dict[str, Tensor], model: Any) -> bool:
    expected = model.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in expected)


def test_weights_averages_moments_and_step_arrive(tmp_path: Path) -> None:
    raw, averaged = write_vdvae(tmp_path / "theirs")
    run = import_it(tmp_path, tmp_path / "theirs")
    ours = checkpoint_in(run)
    assert ours["state"]["step"] == 140  # as the name says; the log's last line is older
    assert same_weights(ours["model"], raw) and same_weights(ours["ema"], averaged) and ours["ema_is_aged"]
    (moments,) = ours["optimizer"]["state"].values()
    assert float(moments["step"]) == 138  # updates that were applied
    pieces = FlatParameters(raw.to(memory_format=torch.channels_last)).pieces
    for (name, weight), first, second in zip(
        vdvae_model(0).named_parameters(), pieces(moments["exp_avg"]), pieces(moments["exp_avg_sq"]), strict=True
    ):
        assert torch.equal(first, 0.1 * weight) and torch.equal(second, weight**2), name
    settings = load(run / "hparams.cfg")
    assert (settings.optimizer.name, settings.optimizer.betas, settings.train.ema_decay) == ("adamw", (0.9, 0.9), 0.99)


@pytest.mark.parametrize("form", ["zip", "before torch 1.6", "wrapped"])
def test_the_average_alone_in_any_form(tmp_path: Path, form: str) -> None:
    """The published CIFAR-10 files have nothing else."""
    model = vdvae_model(1)
    path = tmp_path / "seed0-iter-900000-anything"
    state = vdvae_state(model, "module." if form == "wrapped" else "")
    torch.save(state, path, _use_new_zipfile_serialization=form != "before torch 1.6")
    (tmp_path / "hparams.json").write_text(json.dumps(VDVAE))
    folder = tmp_path / "both"
    folder.mkdir()
    for file in (path, tmp_path / "hparams.json"):
        file.rename(folder / file.name)
    ours = checkpoint_in(import_it(tmp_path, folder))
    assert same_weights(ours["model"], model)
    assert ours["optimizer"] is None
    assert (ours["ema"] is None) == (form == "wrapped")


def test_the_run_is_used_and_goes_on_with_its_average_kept(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    with DumpWriter(tmp_path / "dumps", "cifar10_vdvae", Layout((3, 32, 32), 256), {}) as writer:
        for split, images in (("train", noise[:8]), ("valid", noise[8:12]), ("test", noise[12:])):
            writer.add(split, images)
    _, averaged = write_vdvae(tmp_path / "theirs", prefix="latest", step=1)
    run = import_it(tmp_path, tmp_path / "theirs")
    places = [f"run.runs={tmp_path / 'runs'}", f"data.dumps={tmp_path / 'dumps'}", "run.name=taken", "val.images=0"]
    settings = load(run / "hparams.cfg", places)
    synthesize(settings, ["reconstruction"])
    metrics = read_json(run / "synthesis" / "reconstruction" / "metrics.json")
    assert (metrics["weights"], metrics["split"], metrics["n_images"]) == ("ema", "test", 4)
    assert abs(metrics["nelbo"] - metrics["nelbo_as_published"]) < 1e-2 * metrics["nelbo"]
    train(settings)
    step = checkpoint_in(run)["state"]["step"]
    begun, raw = averaged.input_conv.weight.detach(), vdvae_model(0).input_conv.weight.detach()
    moved = checkpoint_in(run)["ema"]["input_conv.weight"] - begun
    assert step == 6  # 3 epochs of 2 steps
    assert float(moved.norm()) < 0.2 * float((raw - begun).norm())


def test_the_newest_checkpoint_of_a_folder_is_taken(tmp_path: Path) -> None:
    write_vdvae(tmp_path / "theirs", "iter-25000", 25000)
    write_vdvae(tmp_path / "theirs", "iter-100000", 100000)
    assert checkpoint_in(import_it(tmp_path, tmp_path / "theirs"))["state"]["step"] == 100_000


def test_an_archive_as_it_was_downloaded(tmp_path: Path) -> None:
    raw, _ = write_vdvae(tmp_path / "theirs")
    (tmp_path / "theirs" / "samples-8.png").write_bytes(b"\x89PNG no picture")
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as archive:
        for path in (tmp_path / "theirs").iterdir():
            archive.write(path, f"../../saved_models/{path.name}")  # a name that leads out of the folder
    run = import_it(tmp_path, tmp_path / "run.zip")
    assert same_weights(checkpoint_in(run)["model"], raw)
    assert not list((tmp_path / "runs").glob("unpacked*"))
    assert not (tmp_path / "saved_models").exists() and not (tmp_path.parent / "saved_models").exists()


def test_weights_of_another_preset_are_named() -> None:
    """As users met it: the file published as ffhq1024."""
    shapes = vdvae_run.preset_shapes("ffhq256")
    asked = vdvae_run.Configuration(PRESETS["ffhq1024"].hparams, 32, "preset ffhq1024")
    with pytest.raises(DataError, match=r"preset ffhq256 fits: --preset ffhq256.*First difference: input_conv\.weight"):
        vdvae_run._check(Path("ffhq1024-model.th"), shapes, asked)
    assert vdvae_run.configuration({}, shapes, None).told.startswith("preset ffhq256")
    wider = {name: (2 * shape[0], *shape[1:]) if name.startswith("output") else shape for name, shape in shapes.items()}
    with pytest.raises(CfgError, match=r"The nearest is ffhq256; the first difference: output_conv\.weight has shape"):
        vdvae_run.configuration({}, wider, None)


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_damaged_and_hostile_files_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    write_vdvae(tmp_path / "theirs")
    path = tmp_path / "theirs" / "iter-140-model.th"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    at = whole.index(vdvae_model(0).output_conv.weight.detach().numpy().tobytes())
    flipped[at] ^= 1  # in the last bit of a weight: still a number
    hostile = {
        "cut short": whole[: len(whole) // 2],
        "a bit flipped": bytes(flipped),
        "empty": b"",
        "a web page": b"<html>quota exceeded</html>",
        "code": pickle.dumps({"encoder.in_conv.weight": Trap(tmp_path / "sprung")}),
        "noise": np.random.default_rng(0).bytes(1000),
    }
    for what, content in hostile.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"iter-140-model\.th"):
            import_it(tmp_path, path)
        if what in ("cut short", "a bit flipped"):
            with pytest.raises(DataError, match=r"damaged|checksum"):
                import_it(tmp_path, tmp_path / "theirs")
    torch.save({"encoder.in_conv.weight": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(DataError, match="would run code"):
        import_it(tmp_path, path)
    assert not (tmp_path / "sprung").exists()
    assert list((tmp_path / "runs").iterdir()) == []


def test_files_that_do_not_belong_together_are_told(tmp_path: Path) -> None:
    for seed in (0, 1):
        torch.save(vdvae_state(vdvae_model(seed)), tmp_path / f"cifar10-seed{seed}-iter-7-model-ema.th")
    with pytest.raises(DataError, match="weights of several checkpoints lie there"):
        import_it(tmp_path, tmp_path)
    write_vdvae(tmp_path / "theirs")
    optimizer = torch.load(tmp_path / "theirs" / "iter-140-opt.th", weights_only=True)
    optimizer["state"][0]["exp_avg"] = torch.zeros(3)
    torch.save(optimizer, tmp_path / "theirs" / "iter-140-opt.th")
    with pytest.raises(DataError, match=r"exp_avg of input_conv\.weight is missing, or has another shape"):
        import_it(tmp_path, tmp_path / "theirs")


# A real checkpoint, written by the original's own trainer


@needs_golden
@pytest.mark.parametrize("which", ["raw", "ema"])
def test_what_is_in_the_real_files(which: str) -> None:
    arrays = arrays_of(GOLDEN / "vectors.npz")
    name = {"raw": "iter-140-model.th", "ema": "legacy_format-model-ema.th"}[which]
    hparams = json.loads((GOLDEN / "config.json").read_text())
    model = from_reference(hparams, torch.load(GOLDEN / name, weights_only=True)).double()
    x = torch.from_numpy(arrays["image_uint8"]).movedim(-1, 1).double() / 255
    with torch.no_grad():
        terms = elbo_terms(x, model(x, given_noise(noise(arrays, "eps"))))
    assert_close(terms.kl.T, double(arrays[f"{which}_kl_nats_per_example"]), rtol=1e-6, atol=1e-6)
    n_dims = x[0].numel()
    assert_close(terms.nll / n_dims, double(arrays[f"{which}_distortion_per_example"]), rtol=1e-6, atol=1e-6)


def noise(arrays: dict[str, np.ndarray], name: str) -> list[Tensor]:
    return [double(arrays[f"{name}_{i:02}"]) for i in range(6)]


@needs_golden
def test_the_moments_of_frozen_weights_are_left_out(tmp_path: Path) -> None:
    """All others lie where training, which has none of those, looks for them."""
    moments = []
    for patterns in ([], ["bottom_up.*", "top_down.1.*"]):
        run = import_it(tmp_path / str(len(patterns)), GOLDEN, "taken", "--exact", f"--set=train.freeze={patterns}")
        settings, checkpoint = load(run / "hparams.cfg"), load_newest(CheckpointStore(run / "checkpoints"), print)
        assert checkpoint is not None and checkpoint.optimizer is not None
        on = checkpoint.about.trained_on
        model = settings.model.build(on.image_shape, on.n_levels)
        freeze(model, settings.train.freeze)
        flat = FlatParameters(model)
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        for state in checkpoint.optimizer["state"].values():
            moments.append(dict(zip(names, flat.pieces(state["exp_avg"]), strict=True)))
        check_moments(checkpoint.optimizer, flat.vector)
    everything, trained = moments
    assert set(everything) - set(trained) == {n for n in everything if n.startswith(("bottom_up.", "top_down.1."))}
    assert all(torch.equal(everything[name], moment) and moment.abs().sum() > 0 for name, moment in trained.items())


@needs_golden
def test_the_real_run_goes_on_as_it_would_have_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more steps from what ``lvae import --exact`` wrote: losses, norms, where every weight and average goes."""
    arrays = arrays_of(GOLDEN / "vectors.npz")
    run = import_it(tmp_path, GOLDEN, "taken", "--exact")
    settings = load(run / "hparams.cfg")
    made = settings.model.make((3, 32, 32), 256, reference=True)  # type: ignore[call-arg]
    model: Any = made.double().to(memory_format=torch.channels_last).train()  # as the run has it
    flat = FlatParameters(model)
    rates = dict(enumerate(arrays["next_lr_as_original"].tolist()))
    ema = Ema(model, settings.train.ema_decay)
    step = TrainStep(
        section=settings.optimizer, bare=model, flat=flat, ema=ema,
        objective=objective_of(settings), optimizer=make_optimizer(settings.optimizer, flat),
        learning_rate=lambda at: rates[at - 140], meter=Meter(6, torch.device("cpu")), preprocess=lambda raw: raw,
    )  # fmt: skip
    checkpoint = load_newest(CheckpointStore(run / "checkpoints"), print)
    assert checkpoint is not None and checkpoint.step == int(arrays["iteration"])
    as_imported = {key: value.double() for key, value in checkpoint.model.items()}
    averaged = {key: value.double() for key, value in (checkpoint.ema or {}).items()}
    step.restore(checkpoint)
    names = [str(our_name(name)) for name in arrays["param_names"].tolist()]
    for t in range(2):
        source = given_noise(noise(arrays, f"next{t}_eps"))
        monkeypatch.setattr("lvae_torch.training.step.posterior_sample", source)
        x = torch.from_numpy(arrays[f"next{t}_image_uint8"]).movedim(-1, 1).double() / 255
        with torch.no_grad():
            loss, _ = step.objective(x, model(x, source), 140 + t)
        assert_close(loss, double(arrays[f"next{t}_elbo"]), rtol=1e-6, atol=1e-6)
        step(x, 140 + t)
        norm = step.meter.sums[-2] if t == 0 else None
        if norm is not None:
            assert float(norm) == pytest.approx(float(arrays["next0_grad_norm"]), rel=1e-5)
        for of, begun, key in ((model, as_imported, "param"), (ema.model, averaged, "ema")):
            moved = torch.stack([(of.get_parameter(name) - begun[name]).norm() for name in names])
            assert_close(moved.detach(), double(arrays[f"next{t}_{key}_delta_norm"]), rtol=1e-6, atol=1e-7)


def objective_of(settings: Any) -> Any:
    from lvae_torch.elbo.objective import Objective

    return Objective(settings.loss, (3, 32, 32))
