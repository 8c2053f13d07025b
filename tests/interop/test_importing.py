"""A checkpoint of the original Efficient-VDVAE becomes a run of ours, safely and to the bit."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from original_cfg import original_sections, original_text
from torch import Tensor, nn

from lvae_torch.data.dump import Dump, Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import read_json
from lvae_torch.hparams import load
from lvae_torch.import_run import command
from lvae_torch.interop.efficient_vdvae import INSIDE_A_BLOCK
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train

SMALL = {
    "input_conv_filters": 8, "up_strides": [2, 4, 1], "down_strides": [1, 4, 2], "up_filters": [8, 8, 8],
    "up_skip_filters": [8, 8, 8], "down_filters": [8, 8, 8], "down_latent_variates": [2, 2, 2],
    "up_kernel_size": [3, 3, 3], "down_kernel_size": [3, 3, 3], "up_n_blocks_per_res": [1, 0, 0],
    "down_n_blocks_per_res": [0, 0, 1],
    **{f"{tower}_n_blocks": [1, 1, 1] for tower in ("up", "down")},
    **{f"{tower}_n_layers": [1, 1, 1] for tower in ("up", "down")},
    **{f"{tower}_mid_filters_ratio": [0.5, 0.5, 0.5] for tower in ("up", "down")},
}  # fmt: skip
N_UP = SMALL["up_n_blocks_per_res"]
STEP = 41


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The original's cfg, and its images, which are only noise here."""
    sections = original_sections("cifar10_C1")
    sections["model"] |= SMALL
    sections["train"] |= {"total_train_steps": STEP + 3, "batch_size": 4}
    sections["optimizer"] |= {"decay_start": 2, "decay_steps": 60, "warmup_steps": 1}
    sections["val"] |= {"n_samples_for_validation": 3, "batch_size": 3}
    (tmp_path / "hparams-theirs.cfg").write_text(original_text(sections))
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    with DumpWriter(tmp_path / "dumps", "cifar10_efficient_vdvae", Layout((3, 32, 32), 256), {}) as writer:
        for split, images in (("train", noise[:16]), ("valid", noise[16:20]), ("test", noise[20:])):
            writer.add(split, images)
    return tmp_path


def originals_name(name: str) -> str:
    """The name of a parameter of ours in the original's state dict."""
    if name == "top_h":
        return "top_down.trainable_h"
    kind, *rest = name.split(".")
    if kind in ("input_conv", "output_conv"):
        return f"{'bottom_up' if kind == 'input_conv' else 'top_down'}.{name}"
    stage, block, inside = int(rest[0]), int(rest[1]), ".".join(rest[2:])
    if kind == "up":
        place = f"levels_up_downsample.{stage}" if block == N_UP[stage] else f"levels_up.{stage}.{block}"  # type: ignore[index]
    else:
        place = f"levels_down.{stage}.{block - 1}" if block else f"levels_down_upsample.{stage}"
    for theirs, ours in INSIDE_A_BLOCK.items():
        if inside.startswith(ours):
            inside = theirs + inside.removeprefix(ours)
            break
    parts = inside.split(".")
    for i in range(len(parts) - 1):
        if parts[i] == "conv" and parts[i + 1].isdecimal():
            parts[i : i + 2] = ["convs", str(2 * int(parts[i + 1]) + 1)]
    return f"{'bottom_up' if kind == 'up' else 'top_down'}.{place}.{'.'.join(parts)}"


def theirs_of(model: nn.Module) -> dict[str, Tensor]:
    return {originals_name(name): parameter.detach() for name, parameter in model.named_parameters()}


def checkpoint_of(settings: Any, **changes: Any) -> tuple[dict[str, Any], nn.Module, nn.Module]:
    """What the original saves, and the two models in it."""
    models: list[Any] = []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append(settings.model.build((3, 32, 32), 256))
    raw, averaged = (theirs_of(model) for model in models)
    moments = {
        i: {"step": STEP, "exp_avg": weight * 0.5, "exp_inf": weight.abs() + 1} for i, weight in enumerate(raw.values())
    }
    state = {
        "global_step": STEP - 1, "model_state_dict": raw, "ema_model_state_dict": averaged,
        "optimizer_state_dict": {"state": moments, "param_groups": []}, "scheduler_state_dict": {"last_epoch": 40},
    }  # fmt: skip
    return {**state, **changes}, models[0], models[1]


def import_it(folder: Path, name: str = "taken", *options: str) -> None:
    command(
        [str(folder / "theirs"), "--cfg", str(folder / "hparams-theirs.cfg"), "--name", name,
         f"--set=run.runs={folder / 'runs'}", f"--set=data.dumps={folder / 'dumps'}", "--set=run.device=cpu", *options]
    )  # fmt: skip


def settings_of(folder: Path, **changes: Any) -> Any:
    overrides = [f"run.runs={folder / 'runs'}", f"data.dumps={folder / 'dumps'}", "run.name=taken", "run.device=cpu"]
    return load(
        folder / "hparams-theirs.cfg", [*overrides, *(f"{k.replace('__', '.')}={v}" for k, v in changes.items())]
    )


def loaded(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "runs" / "taken" / "checkpoints").glob("*.pt")
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def newest(folder: Path) -> dict[str, Any]:
    path = max((folder / "runs" / "taken" / "checkpoints").glob("*.pt"))
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def moments_by_name(flat: Tensor, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    offset = 0
    for name, parameter in model.named_parameters():
        in_memory = parameter.to(memory_format=torch.channels_last) if parameter.dim() == 4 else parameter
        yield name, flat.as_strided(parameter.shape, in_memory.stride(), offset)
        offset += parameter.numel()


def test_weights_averages_moments_and_step_arrive(folder: Path) -> None:
    settings = settings_of(folder)
    theirs, raw, averaged = checkpoint_of(settings)
    torch.save(theirs, folder / "theirs")
    import_it(folder)
    ours = loaded(folder)
    assert ours["state"]["step"] == STEP
    for key, model in (("model", raw), ("ema", averaged)):
        assert ours[key].keys() == model.state_dict().keys()
        assert all(torch.equal(ours[key][name], value) for name, value in model.state_dict().items())
    (moments,) = ours["optimizer"]["state"].values()
    assert float(moments["step"]) == STEP
    for name, value in moments_by_name(moments["exp_avg"], raw):
        assert torch.equal(value, raw.get_parameter(name) * 0.5), name
    for name, value in moments_by_name(moments["exp_inf"], raw):
        assert torch.equal(value, raw.get_parameter(name).abs() + 1), name


def test_the_run_can_be_used_and_goes_on(folder: Path) -> None:
    theirs, _, _ = checkpoint_of(settings_of(folder))
    torch.save(theirs, folder / "theirs")
    import_it(folder)
    synthesize(settings_of(folder), ["reconstruction"])
    metrics = read_json(folder / "runs" / "taken" / "synthesis" / "reconstruction" / "metrics.json")
    assert (metrics["step"], metrics["weights"], metrics["n_images"]) == (STEP, "ema", 4)
    train(settings_of(folder, val__images=0))
    assert read_json(folder / "runs" / "taken" / "status.json")["step"] == STEP + 3


def test_without_the_dump_it_is_of_an_unknown_one_and_takes_any(folder: Path) -> None:
    settings = settings_of(folder)
    torch.save(checkpoint_of(settings)[0], folder / "theirs")
    (folder / "dumps").rename(folder / "later")
    import_it(folder)
    assert loaded(folder)["meta"]["data"]["content_hash"] == "unknown"
    (folder / "later").rename(folder / "dumps")
    train(settings_of(folder, val__images=0))
    assert Dump.open(folder / "dumps", "cifar10_efficient_vdvae").content_hash != "unknown"


def test_moments_of_another_form_are_left_out_and_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs, _, _ = checkpoint_of(settings_of(folder), optimizer_state_dict={"state": {0: {"sum": torch.ones(3)}}})
    torch.save(theirs, folder / "theirs")
    import_it(folder)
    assert "no moments of the optimizer" in capsys.readouterr().err
    assert loaded(folder)["optimizer"] is None
    train(settings_of(folder, val__images=0))


def test_a_finished_run_is_imported_as_finished_and_can_be_trained_further(folder: Path) -> None:
    """The original counts one step more than its cfg says."""
    cfg = folder / "hparams-theirs.cfg"
    cfg.write_text(cfg.read_text().replace(f"total_train_steps = {STEP + 3}", f"total_train_steps = {STEP - 1}"))
    torch.save(checkpoint_of(settings_of(folder))[0], folder / "theirs")
    import_it(folder)
    status = folder / "runs" / "taken" / "status.json"
    assert (read_json(status)["state"], read_json(status)["step"]) == ("finished", STEP)
    places = [f"run.runs={folder / 'runs'}", f"data.dumps={folder / 'dumps'}", "val.images=0"]
    kept = folder / "runs" / "taken" / "hparams.cfg"
    train(load(kept, places))  # only evaluated: nothing is refused
    assert read_json(status)["step"] == STEP
    train(load(kept, [*places, f"train.steps={STEP + 2}"]))
    assert read_json(status)["step"] == STEP + 2


def test_schedules_are_theirs_where_asked_and_else_their_difference_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(checkpoint_of(settings_of(folder))[0], folder / "theirs")
    import_it(folder)
    told = capsys.readouterr().err
    assert "the learning rate differs from theirs: at step 41" in told
    assert "beta differs from theirs" in told
    assert "weight decay is 0.01 here, 0 there" in told
    import_it(folder, "as_theirs", "--exact")
    assert "differs" not in capsys.readouterr().err
    kept = load(folder / "runs" / "as_theirs" / "hparams.cfg")
    optimizer = kept.optimizer
    assert (optimizer.schedule, optimizer.warmup_from_zero, optimizer.weight_decay) == ("cosine_chained", True, 0.0)
    assert kept.loss.beta == ("linear", 21, 5042, 1e-4)


def test_an_imported_average_keeps_its_decay(folder: Path) -> None:
    """Also at its first steps, where a new run's average forgets its random beginning."""
    torch.save(checkpoint_of(settings_of(folder))[0], folder / "theirs")
    import_it(folder)
    before = loaded(folder)["ema"]["input_conv.weight"]
    train(settings_of(folder, val__images=0))
    after = newest(folder)
    moved = (after["ema"]["input_conv.weight"] - before).norm() / (before - after["model"]["input_conv.weight"]).norm()
    assert float(moved) < 4 * (1 - 0.9999)


def test_what_is_refused(folder: Path) -> None:
    settings = settings_of(folder)
    theirs, _, _ = checkpoint_of(settings)
    torch.save({"weights": theirs["model_state_dict"]}, folder / "theirs")
    with pytest.raises(DataError, match=r"a PyTorch file, but no checkpoint of .* it holds weights"):
        import_it(folder)
    (folder / "theirs").write_bytes(pickle.dumps(theirs["global_step"]))
    with pytest.raises(DataError, match="a pickle, but not"):
        import_it(folder)
    other = {name: weight for name, weight in theirs["model_state_dict"].items() if "skip" not in name}
    torch.save({**theirs, "model_state_dict": other}, folder / "theirs")
    with pytest.raises(DataError, match=r"skip_proj\.weight: missing"):
        import_it(folder)
    assert not (folder / "runs" / "taken").exists()
    torch.save(theirs, folder / "theirs")
    import_it(folder)
    with pytest.raises(CfgError, match="there is a run of that name"):
        import_it(folder)


def test_code_in_a_checkpoint_is_not_run(folder: Path) -> None:
    torch.save({"global_step": _Trap(folder / "sprung")}, folder / "theirs")
    with pytest.raises(DataError, match="would run code"):
        import_it(folder)
    assert not (folder / "sprung").exists()


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_cfg_of_another_family_is_refused(folder: Path) -> None:
    torch.save(checkpoint_of(settings_of(folder))[0], folder / "theirs")
    (folder / "hparams-theirs.cfg").write_text(small.CFG)
    with pytest.raises(CfgError, match=r"no settings of .*Efficient-VDVAE; \[model\] bottom_up is missing"):
        import_it(folder)
