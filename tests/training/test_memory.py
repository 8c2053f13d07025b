"""Memory before it is needed: estimates against PyTorch's profiler, batch sizes, and what is told for want."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from torch.profiler import ProfilerActivity, profile

from lvae_torch.data.labelled import Labelled
from lvae_torch.distributed.cpu import half_of_cpu
from lvae_torch.distributed.processes import Processes
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.elbo.evaluation import evaluate
from lvae_torch.elbo.objective import Objective
from lvae_torch.elbo.section import LossSection, ValSection
from lvae_torch.errors import OutOfMemory
from lvae_torch.hparams import load_text
from lvae_torch.models.contract import Model
from lvae_torch.models.half import use_bfloat16
from lvae_torch.models.sources import posterior_sample, prior_sample
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train
from lvae_torch.training import memory
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.memory import (
    AtOnce,
    Need,
    Needs,
    fitting,
    most_at_once,
    needs,
    out_of_memory,
    told_before,
)
from lvae_torch.training.section import TrainSection
from lvae_torch.training.wrapping import autocast, half_weights, place

CPU = torch.device("cpu")
N = 32
MAKERS: dict[str, Callable[..., Model]] = {
    "spatial_lvae": lambda scale: small.model((3, 16, 16), 256, n_filters=8 * scale, likelihood="discretized_logistic"),
    "efficient_vdvae": lambda scale: small.very_deep((3, 16, 16), 256, widths=(8 * scale, 16 * scale, 16 * scale)),
    "ladder": lambda scale: small.dense("ladder", widths=(64 * scale, 32 * scale, 32)),
    "hierarchical_vae": lambda scale: small.dense("hierarchical_vae", widths=(64 * scale, 32 * scale, 32)),
    "vae": lambda scale: small.one_latent("vae", (3, 16, 16), 256, widths=(8 * scale, 16 * scale, 16)),
    "vlae": lambda scale: small.one_latent("vlae", (3, 16, 16), 256, widths=(8 * scale, 16 * scale, 16)),
    "vqvae": lambda scale: small.vqvae((3, 16, 16), width=8 * scale),
    "pixelcnn": lambda scale: small.pixelcnn((1, 8, 8), width=64 * scale),
}


def profiled(run: Callable[[], object]) -> int:
    """Most bytes that PyTorch held at once beyond what it held before, as its profiler counts them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            run()
    events = recorded.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    peak = held = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "channels_last"), [("float32", False), ("float32", True), ("bfloat16", True)])
@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("family", list(MAKERS))
def test_estimates_are_what_is_measured(family: str, scale: int, precision: str, channels_last: bool) -> None:
    """Training, evaluation and synthesis, within 15 %; drawing with narrow layers that a kernel turns, within 30 %."""
    if precision == "bfloat16" and half_of_cpu() == "none":
        pytest.skip("the kernels of a CPU without instructions for bfloat16 hold copies in float32")
    model = MAKERS[family](scale)
    section = TrainSection(ema_decay=0.0, precision=precision, channels_last=channels_last)
    place(section, model, CPU)
    flat = FlatParameters(model)
    half = half_weights(section, model, flat)
    found = needs(model, section, LossSection(), AtOnce(N, N, N), half, precision)
    x = torch.rand(N, *model.image_shape)

    def step() -> None:
        with autocast(precision, CPU):
            if half:
                half.refresh()
            out = half(model, x) if half else model(x, posterior_sample)
            nelbo = elbo_terms(x, out).nelbo.mean()
        nelbo.backward()

    model.train()
    measured = {"training": profiled(step)}
    model.eval()
    with torch.no_grad():
        measured["evaluation"] = profiled(lambda: elbo_terms(x, model(x, posterior_sample)))
        prior = prior_sample([1.0] * len(model.latent_shapes()))
        if precision == "bfloat16":
            use_bfloat16(model)
        measured["synthesis"] = profiled(lambda: model(None, prior, n=N).likelihood.mean())
    for name, peak in measured.items():
        need: Need = getattr(found, name)
        given = 0 if name == "synthesis" else x.nbytes
        off = 0.3 if name == "synthesis" and channels_last else 0.15
        assert need.of_pass(N) == pytest.approx(peak + given, rel=off), (name, need, peak)


@pytest.mark.parametrize("family", ["spatial_lvae", "ladder"])
def test_samples_of_an_image_need_its_encoding_once(family: str) -> None:
    model, loss = MAKERS[family](1), LossSection(mc_samples=2, iw_samples=3)
    flat = FlatParameters(model)  # whose gradients are there already
    found = needs(model, TrainSection(channels_last=False), loss, AtOnce(N, N, N))
    x, objective = torch.rand(N, *model.image_shape), Objective(loss, model.image_shape)

    def step() -> None:
        wide = objective.repeated(x)
        objective(wide, model(x, posterior_sample, samples=6), 0)[0].backward()

    model.train()
    measured = profiled(step)
    assert found.training.of_pass(N) == pytest.approx(measured + x.nbytes, rel=0.15)
    alone = needs(model, TrainSection(channels_last=False), LossSection(), AtOnce(6 * N, N, N)).training
    assert found.training.of_pass(N) < 0.95 * alone.of_pass(6 * N), "as if each sample were an image"
    assert flat.gradient.abs().max() > 0


def test_batch_sizes_follow_those_of_training() -> None:
    def sizes(**keys: Any) -> tuple[int, int, int]:
        cfg = "\n".join(
            line
            for line in small.CFG.splitlines()
            if not line.startswith(("batch_size = 7", "batch_size = 5", "chunk"))
        )
        settings = load_text(cfg, "small.cfg", [f"{key.replace('__', '.')}={value}" for key, value in keys.items()])
        return settings.val.batch_size, settings.synthesis.batch_size, settings.synthesis.chunk

    assert sizes(train__batch_size=2) == (2, 2, 0)
    assert sizes(train__batch_size=64, train__accumulate=4) == (16, 16, 0)
    assert sizes(train__batch_size=4096) == (250, 100, 0)
    assert sizes(train__batch_size=2, val__batch_size=30, synthesis__chunk=9) == (30, 2, 9)


class Scarce(torch.nn.Module):
    """A model that has memory for so many images only."""

    def __init__(self, model: Any, most: int) -> None:
        super().__init__()
        self.model, self.most = model, most

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.model, name)

    def forward(self, x: torch.Tensor, source: Any) -> Any:
        if len(x) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return self.model(x, source)


def test_an_evaluation_halves_its_batch_once(capsys: pytest.CaptureFixture[str]) -> None:
    model = small.model(dropout=0.0).eval()
    x = small.images(8)
    alone = Processes(0, 1, CPU)
    passes: list[int] = []
    whole = evaluate(model, [(0, Labelled(x))], alone, seed=0, after_pass=lambda: passes.append(1))
    halves = evaluate(Scarce(model, 4), [(0, Labelled(x))], alone, seed=0, after_pass=lambda: passes.append(2))
    assert halves.n_images == 8 and halves.nelbo == pytest.approx(whole.nelbo, rel=0.05), "other noise, same images"
    assert passes == [1, 2], "other ranks count on as many rounds"
    assert "8 images at once need more memory than there is; going on with half of them" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="can't allocate"):
        evaluate(Scarce(model, 3), [(0, Labelled(x))], alone, seed=0)


def test_what_is_told_where_training_finds_no_memory() -> None:
    train_section, val = TrainSection(batch_size=24), ValSection(batch_size=30)
    found = Needs(Need(2**30, 0, 2**30), Need(2**30, 0, 2**29), Need(0, 0, 0))
    told = str(out_of_memory("training", found, train_section, val, CPU, world=2))
    for part in (
        "12 images at once, about 13.0 GiB (batch_size = 24, 2 processes)",
        "[train] accumulate = 2 (the same batch, in smaller parts: about 7.0 GiB)",
        "batch_size = 12 (about 7.0 GiB)",
        "activation_checkpointing = True",
    ):
        assert part in told, told
    told = str(out_of_memory("evaluating", found, train_section, val, CPU, world=1))
    assert "evaluating takes 30 images at once, about 16.0 GiB" in told
    assert "Set [val] batch_size = 15 (about 8.5 GiB)" in told


@pytest.mark.parametrize("family", ["spatial_lvae", "vqvae", "ladder"])
def test_looking_at_the_needs_changes_nothing(family: str) -> None:
    """And without numbers it finds the same."""
    model, train_section = MAKERS[family](1).eval(), TrainSection()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = needs(model, train_section, LossSection(), AtOnce(N, N, N))
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    without = needs(model.to("meta"), train_section, LossSection(), AtOnce(N, N, N))
    for phase in ("training", "evaluation", "synthesis"):
        assert getattr(without, phase).of(N) == pytest.approx(getattr(found, phase).of(N), rel=0.01), phase


def test_what_a_run_begins_with(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 2**30
    need = Need(weights=gib, fixed=0, per_image=gib // 10)
    found = Needs(need, Need(gib, 0, gib // 4), Need(0, 0, 4 * gib // 10))
    train_section, val = TrainSection(batch_size=40), ValSection(batch_size=20)
    monkeypatch.setattr(memory, "free_of", lambda device: 4.5 * gib)
    at_once = AtOnce.of(train_section, val, 1, world=2)
    line, *warnings_ = told_before(found, at_once, train_section, val, CPU, world=2).splitlines()
    assert line == (
        "memory, about: training 3.0 GiB (20 images at once), evaluation 6.0 GiB (20 images at once), "
        "synthesis 410 MiB (1 images at once); cpu has 4.5 GiB free"
    )
    assert warnings_ == [
        "WARNING: evaluating takes 20 images at once, about 6.0 GiB, which may not fit. Set [val] batch_size = 10 "
        "(about 3.5 GiB)."
    ]
    larger = TrainSection(batch_size=60)
    (training, _) = told_before(found, AtOnce.of(larger, val, 1), larger, val, CPU, world=1).splitlines()[1:]
    assert "training takes 60 images at once" in training and "[train] accumulate = 2" in training
    card = torch.device("cuda")
    apart = Needs(Need(gib, 0, gib // 10, least=gib), Need(gib, 0, gib // 10), found.synthesis)
    for device, n_warnings in ((CPU, 0), (card, 1)):  # there 2 GiB of the step, 1 of the update, 2 of the evaluation
        told = told_before(apart, at_once, train_section, val, device, world=2)
        assert told.count("WARNING: evaluating") == n_warnings
    monkeypatch.setattr(memory, "free_of", lambda device: 0)
    assert "free" not in told_before(found, at_once, train_section, val, CPU, world=2)


def failing(*_: object, **__: object) -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")


def test_commands_say_it_in_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small.write_dump(tmp_path / "dumps")
    settings = small.settings(tmp_path, train__steps=2)
    with monkeypatch.context() as patch:
        patch.setattr("lvae_torch.train.initialize", failing)
        with pytest.raises(OutOfMemory, match=r"initial weights.*\[train\] batch_size = 8.*Set batch_size = 4, make"):
            train(settings)
    with monkeypatch.context() as patch:
        patch.setattr("lvae_torch.training.step.TrainStep._backward", failing)
        with pytest.raises(OutOfMemory, match=r"training takes 8 images at once.*\[train\] accumulate = 2"):
            train(settings)
    train(settings)
    monkeypatch.setattr("lvae_torch.synthesis.session.Session.picture_of", failing)
    with pytest.raises(OutOfMemory, match=r"generation takes 5 images at once.*Set \[synthesis\] batch_size = 2,"):
        synthesize(settings, ["generation"])


@pytest.mark.parametrize(
    ("free", "most"), [(80 * 2**30, 8092), (4 * 2**30, 1948), (150 * 2**20, 0), (-(2**30), 0)], ids=str
)
def test_a_pass_of_any_size_leaves_half_of_a_card(free: int, most: int) -> None:
    need = Need(weights=2**30, fixed=100 * 2**20, per_image=2**20)
    assert fitting(need, free) == most
    assert need.fixed + most * need.per_image <= max(free // 2, need.fixed)
    assert most_at_once(need, 0, 17, Processes(0, 1, CPU)) == 17
