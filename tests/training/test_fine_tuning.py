"""Beginning with parts of another run's weights, and weights that stay as they are."""

from pathlib import Path
from typing import Any

import pytest
import small
import torch
from running import checkpoint

from lvae_torch.errors import CfgError, DataError
from lvae_torch.train import train
from lvae_torch.training.fine_tuning import freeze, take_fitting
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.optimization import check_moments


def test_what_fits_is_taken_and_the_rest_is_listed() -> None:
    there, here = small.model(z_channels=(2, 3)), small.model(z_channels=(2, 4))
    with torch.no_grad():
        for parameter in there.parameters():
            parameter.fill_(7.0)
    before = {name: value.clone() for name, value in here.state_dict().items()}
    table = take_fitting(here, there.state_dict())
    for name, value in here.state_dict().items():
        fits = there.state_dict()[name].shape == value.shape
        assert torch.equal(value, there.state_dict()[name] if fits else before[name]), name
        assert (name in table) is not fits
    assert "rungs.0.posterior.weight" in table and "8x4x3x3" in table and "6x4x3x3" in table


def test_what_fits_nowhere_is_refused() -> None:
    with pytest.raises(CfgError, match="none of its weights has the name"):
        take_fitting(small.model(), small.dense("ladder").state_dict())


FEWER: dict[str, tuple[Any, Any, str]] = {
    "spatial_lvae": (
        small.model(z_channels=(2, 3)),
        small.model(z_channels=(2, 3, 4), downsample=(1, 1, 0)),
        "rungs",
    ),
    "efficient_vdvae": (
        small.very_deep(scales=(1, 2), bottom_up=((2,), (1, 1)), top_down=((1, 2), (2,)), widths=(6, 8), kernels=(3, 3),
                        z_channels=(2, (3, 2))),
        small.very_deep(),
        "down",
    ),
    "vdvae": (
        small.residual(enc_blocks="8x1,8d2,4x1", dec_blocks="4x1,8m4,8x1", custom_width_str="4:8"),
        small.residual(),
        "top_down",
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FEWER)
def test_layers_of_another_depth_are_matched_from_the_image_up(family: str) -> None:
    fewer, more, name = FEWER[family]
    layers = [dict(getattr(model, name)[-1].state_dict()) for model in (fewer, more)]
    layers[1] = {key: value.clone() for key, value in layers[1].items()}
    assert not all(torch.equal(value, layers[0][key]) for key, value in layers[1].items() if value.ndim)
    table = take_fitting(more, fewer.state_dict())
    n_there, n_here = len(getattr(fewer, name)), len(getattr(more, name))
    assert f"{name}.0 there is {name}.{n_here - n_there} here" in table
    for key, value in getattr(more, name)[-1].state_dict().items():
        assert torch.equal(value, layers[0][key]), key
    back = take_fitting(fewer, more.state_dict())
    assert f"{name}.{n_here - n_there} there is {name}.0 here" in back


def test_another_image_size_and_depth_begin_with_what_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small.write_dump(tmp_path / "dumps")
    train(small.settings(tmp_path, train__steps=2, train__ema_decay=0.0))
    deeper: dict[str, Any] = {"model__z_channels": [2, 3, 4], "model__downsample": [1, 1, 0], "run__name": "deeper"}
    with pytest.raises(CfgError, match=r"trained with another \[model\]"):
        train(small.settings(tmp_path, train__initial_run="small", **deeper))
    more = {"train__steps": 1, "optimizer__learning_rate": 1e-12, "train__initial_partial": True}
    train(small.settings(tmp_path, train__initial_run="small", **deeper, **more))
    assert "taken: " in capsys.readouterr().err
    given, begun = checkpoint(tmp_path, "small")["model"], checkpoint(tmp_path, "deeper")["model"]
    assert torch.allclose(given["stem.0.weight"], begun["stem.0.weight"], atol=1e-6)
    with pytest.raises(CfgError, match="initial_partial says how to take"):
        small.settings(tmp_path, train__initial_partial=True)


def test_the_average_soon_forgets_new_layers_and_keeps_taken_runs(tmp_path: Path) -> None:
    """Of a run that is partly new it moves at once, as of a new one; of one taken whole by 1 - decay a step."""
    small.write_dump(tmp_path / "dumps")
    train(small.settings(tmp_path, train__steps=1))
    deeper = {"model__z_channels": [2, 3, 4], "model__downsample": [1, 1, 0], "train__initial_partial": True}

    def moved(name: str, **more: Any) -> float:
        for run, rate in ((f"{name}_begun", 1e-12), (name, 1e-2)):
            told = {"run__name": run, "optimizer__learning_rate": rate, "train__steps": 2, **more}
            train(small.settings(tmp_path, train__initial_run="small", train__ema_decay=0.99, **told))
        begun, after = checkpoint(tmp_path, f"{name}_begun")["model"], checkpoint(tmp_path, name)
        way = after["model"]["rungs.0.posterior.weight"] - begun["rungs.0.posterior.weight"]
        average = after["ema"]["rungs.0.posterior.weight"] - begun["rungs.0.posterior.weight"]
        return float(average.norm() / way.norm())

    assert moved("deeper", **deeper) > 0.5
    assert moved("whole") < 0.03


def test_frozen_weights_stay_and_the_others_move(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    kinds = {"train__freeze": ["stem.*", "*.prior.*"], "train__steps": 3}
    train(small.settings(tmp_path, train__steps=1, optimizer__learning_rate=1e-12))
    train(small.settings(tmp_path, run__name="fine", train__initial_run="small", **kinds))
    given, tuned = checkpoint(tmp_path, "small")["ema"], checkpoint(tmp_path, "fine")
    model = small.settings(tmp_path).model.build(small.IMAGE_SHAPE, 2)
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    stay = {name for name in trainable if name.startswith("stem.") or ".prior." in name or not trainable[name]}
    moved = {name for name in trainable if not torch.equal(given[name], tuned["model"][name])}
    assert not moved & stay and "head.weight" in moved and len(moved) > len(trainable) // 2
    assert all(torch.equal(given[name], tuned["ema"][name]) for name in stay)
    train(small.settings(tmp_path, run__name="fine", train__initial_run="small", **{**kinds, "train__steps": 5}))
    with pytest.raises(CfgError, match=r"\[train\] freeze"):
        train(small.settings(tmp_path, run__name="fine", train__initial_run="small", train__steps=7))


@pytest.mark.parametrize(
    ("patterns", "told"), [(["stme.*"], "'stme.\\*' matches no weight.*stem"), (["*"], "nothing is")]
)
def test_patterns_that_leave_nothing_or_match_nothing(patterns: list[str], told: str) -> None:
    with pytest.raises(CfgError, match=told):
        freeze(small.model(), patterns)


def test_frozen_weights_do_not_decay() -> None:
    model = small.very_deep()
    freeze(model, ["up.*"])
    flat = FlatParameters(model)
    optimizer = small.make_optimizer(
        small.OptimizerSection(weight_decay=0.5, weight_decay_on="blocks", name="adamw"), flat, model.block_weights()
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.param_groups[0]["lr"] = 0.5
    with torch.no_grad():
        optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and not any(name.startswith("up.") for name in moved)


def test_all_blocks_may_be_frozen() -> None:
    model = small.very_deep()
    freeze(model, [f"{name}.*" for name in ("up", "down")])
    section = small.OptimizerSection(weight_decay=0.5, weight_decay_on="blocks", name="adamw")
    assert not any(weight.requires_grad for weight in model.block_weights())
    small.make_optimizer(section, FlatParameters(model), model.block_weights()).step()


def test_moments_of_other_weights_are_refused() -> None:
    frozen = small.very_deep()
    freeze(frozen, ["up.*"])
    there, here = FlatParameters(small.very_deep()), FlatParameters(frozen)
    saved = small.optimizer(there, "adamw").state_dict()
    check_moments(saved, there.vector)
    told = f"exp_avg of {there.vector.numel():,} weights, but {here.vector.numel():,} are trained"
    with pytest.raises(DataError, match=told):
        check_moments(saved, here.vector)
