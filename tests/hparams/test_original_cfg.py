"""Cfg files of the original Efficient-VDVAE, unmodified: what becomes of every key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from original_cfg import TRAINING, original_sections, original_text

from lvae_torch.errors import CfgError
from lvae_torch.hparams import Settings, load, load_text

EGS = Path(__file__).resolve().parents[2] / "egs" / "efficient_vdvae"
CIFAR10 = "cifar10_C1"


def loaded(changes: Mapping[str, Any] | None = None, name: str = CIFAR10, overrides: tuple[str, ...] = ()) -> Settings:
    """The example with ``section.key`` changed; None takes a key away."""
    sections = {section: dict(keys) for section, keys in original_sections(name).items()}
    for key, value in (changes or {}).items():
        section, _, key = key.partition(".")
        if value is None:
            del sections[section][key]
        else:
            sections[section][key] = value
    return load_text(original_text(sections), f"{name}.cfg", overrides)


@pytest.mark.parametrize("name", TRAINING)
def test_the_examples_are_those_of_ours(name: str) -> None:
    theirs, ours = loaded(name=name), load(EGS / f"{name}.cfg", ["data.dumps=dataset_dumps"])
    assert theirs.model == ours.model
    assert theirs.optimizer == ours.optimizer
    assert theirs.loss == ours.loss
    for key in ("steps", "batch_size", "ema_decay"):
        assert getattr(theirs.train, key) == getattr(ours.train, key), key
    for key in ("dataset", "binarize", "n_bits", "flip", "val_split"):
        assert getattr(theirs.data, key) == getattr(ours.data, key), key


def test_every_value_arrives() -> None:
    settings = loaded()
    assert (settings.run.name, settings.run.seed, settings.train.keep_checkpoints) == (CIFAR10, 420, 5)
    assert (settings.data.dataset, settings.data.val_split, settings.data.limit_val) == (
        "cifar10_efficient_vdvae", "valid", 5000
    )  # fmt: skip
    assert (settings.data.n_bits, settings.data.flip) == (8, True)
    assert settings.loss.beta == ("linear", 21, 5021, 1e-4)
    assert (settings.loss.balance, settings.loss.balance_steps, settings.loss.per_dimension) == (
        "kl_per_unit", 10_000, True
    )  # fmt: skip
    optimizer = settings.optimizer
    assert (optimizer.name, optimizer.schedule, optimizer.learning_rate) == ("adamax", "cosine", 1e-3)
    assert (optimizer.warmup_steps, optimizer.decay_start, optimizer.decay_end) == (100, 50_000, 0)
    assert (optimizer.final_learning_rate, optimizer.betas, optimizer.eps) == (2e-4, (0.9, 0.999), 1e-8)
    assert (optimizer.clip_norm, optimizer.skip_norm) == (None, 800.0)
    assert (optimizer.weight_decay, optimizer.weight_decay_on) == (0.01, "blocks")
    assert (settings.train.steps, settings.train.batch_size, settings.train.ema_decay) == (800_000, 32, 0.9999)
    assert (settings.train.checkpoint_every, settings.val.every, settings.val.batch_size) == (10_000, 10_000, 64)
    synthesis = settings.synthesis
    assert (synthesis.mode, synthesis.split, synthesis.use_ema) == ("reconstruction", "test", True)
    assert (synthesis.draw, synthesis.output_temperature, synthesis.save_singles) == ("sample", 1.0, True)
    assert (synthesis.keep_fraction, synthesis.save_targets, synthesis.n_images) == (None, False, 32)
    assert synthesis.temperatures == (0.8, ("linear", 0.7, 0.9), 1.0)


def test_a_decay_that_ends_with_the_training_or_elsewhere() -> None:
    assert loaded(name="celebAHQ256_5bits_baseline").optimizer.decay_end == 450_000
    assert loaded({"train.total_train_steps": 1000}).optimizer.decay_end == 800_000


@pytest.mark.parametrize(
    ("changes", "section", "key", "value"),
    [
        ({"loss.variation_schedule": "None"}, "loss", "beta", 1.0),
        ({"loss.variation_schedule": "Logistic"}, "loss", "beta", ("logistic", 10_000, 1e-5)),
        ({"loss.use_gamma_schedule": False}, "loss", "balance", "none"),
        ({"loss.scaled_gamma": False}, "loss", "balance", "kl"),
        ({"loss.use_weight_decay": False}, "optimizer", "weight_decay", 0.0),
        ({"optimizer.clip_gradient_norm": True}, "optimizer", "clip_norm", 300.0),
        ({"optimizer.gradient_skip": False}, "optimizer", "skip_norm", None),
        ({"optimizer.type": "RAdam"}, "optimizer", "name", "radam"),
        ({"optimizer.type": "Radam"}, "optimizer", "name", "radam"),
        ({"optimizer.learning_rate_scheme": "noam"}, "optimizer", "schedule", "noam"),
        ({"optimizer.learning_rate_scheme": "exponential"}, "optimizer", "decay_steps", 750_000),
        ({"train.logging_interval_in_steps": 50}, "train", "log_every", 50),
        ({"synthesis.mask_reconstruction": True}, "synthesis", "keep_fraction", 0.03),
        ({"synthesis.synthesis_mode": "encoding"}, "synthesis", "keep_fraction", 0.03),
        (
            {"synthesis.synthesis_mode": "encoding", "synthesis.variate_masks_quantile": 1.0},
            "synthesis",
            "keep_fraction",
            None,
        ),
        ({"synthesis.synthesis_mode": "div_stats"}, "synthesis", "limit", 0.2),
        (
            {"synthesis.synthesis_mode": "div_stats", "synthesis.div_stats_subset_ratio": 1.0},
            "synthesis",
            "limit",
            0,
        ),
        (
            {"synthesis.synthesis_mode": "div_stats", "synthesis.div_stats_subset_ratio": 1},
            "synthesis",
            "limit",
            0,
        ),
        ({"synthesis.temperature_settings": 0.8}, "synthesis", "temperatures", (0.8,)),
        (
            {"synthesis.temperature_settings": ("linear", 0.7, 0.9)},
            "synthesis",
            "temperatures",
            (("linear", 0.7, 0.9),),
        ),
        ({"synthesis.save_target_in_reconstruction": True}, "synthesis", "save_targets", True),
        ({"synthesis.output_temperature": 0.9}, "synthesis", "output_temperature", 0.9),
        ({"synthesis.n_generation_batches": 3}, "synthesis", "n_images", 96),
        ({"data.num_bits": 5.0}, "data", "n_bits", 5),
        ({"data.num_bits": 5.0}, "model", "bins", "exact"),
    ],
)
def test_a_changed_key(changes: dict[str, Any], section: str, key: str, value: Any) -> None:
    assert getattr(getattr(loaded(changes), section), key) == value


def test_temperatures_of_stages_become_those_of_layers() -> None:
    sections = original_sections(CIFAR10)
    more = sections["model"]["down_n_blocks_per_res"]
    stages = [0.5 + 0.01 * i for i in range(len(more))]
    expected = tuple(t for t, n in zip(stages, more, strict=True) for _ in range(n + 1))
    assert loaded({"synthesis.temperature_settings": [stages]}).synthesis.temperatures == (expected,)
    with pytest.raises(CfgError, match=r"has 2 entries, but there are 33 stages"):
        loaded({"synthesis.temperature_settings": [[0.5, 0.6]]})


def test_what_is_done_otherwise_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"synthesis.variate_masks_quantile": None, "synthesis.variates_masks_quantile": 0.1, "data.num_bits": 5.0}
    assert loaded({**changes, "synthesis.mask_reconstruction": True}).synthesis.keep_fraction == 0.1
    told = capsys.readouterr().err
    for needed in ("num_gpus", "_data_path", "variates_masks_quantile", "bins = overlapping", "use_weight_decay"):
        assert needed in told
    monkeypatch.setenv("RANK", "1")
    loaded()
    assert capsys.readouterr().err == ""


def test_keys_that_may_be_missing_are() -> None:
    unread = (
        "run.num_gpus",
        "run.num_cpus",
        "data.train_data_path",
        "init.batch_size",
        "metrics.latent_active_threshold",
    )
    assert loaded(dict.fromkeys(unread)) == loaded()


def test_all_problems_at_once() -> None:
    with pytest.raises(CfgError) as caught:
        loaded({"data.target_res": 64, "train.resume_from_ema": True, "model.up_filters": [48] * 5})
    text = str(caught.value)
    for needed in ("3 problems", "lvae data images", "initial_run", "33 entries, but up_filters has 5 entries"):
        assert needed in text, text


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("optimizer.type", "Lion", "'Adamax', 'Adam' or 'RAdam'"),
        ("optimizer.learning_rate_scheme", "linear", "'exponential'"),
        ("loss.variation_schedule", "Cubic", "'Logistic'"),
        ("loss.vae_beta_anneal_start", 21.5, "a whole number"),
        ("loss.vae_beta_anneal_steps", 0, "above 0"),
        ("loss.scaled_gamma", 1, "True or False"),
        ("model.distribution_base", "normal", "'std' or 'logstd'"),
        ("model.gradient_smoothing_beta", 0, "above 0"),
        ("model.up_strides", "4", "a list of whole numbers"),
        ("model.up_filters", ["a"] * 33, "a list of whole numbers"),
        ("model.up_n_blocks_per_res", [-1] * 33, "0 or more"),
        ("model.down_mid_filters_ratio", [None] * 33, "a list of numbers"),
        ("model.input_kernel_size", (1, 2, 3), "(rows, columns)"),
        ("train.batch_size", [32], "a whole number above 0"),
        ("data.num_bits", 9.0, "from 1 to 8"),
        ("synthesis.synthesis_mode", "dreaming", "'div_stats'"),
        ("synthesis.div_stats_subset_ratio", 2.0, "at most 1"),
        ("synthesis.temperature_settings", [("cosine", 0.1, 0.2)], "('linear', first, last)"),
    ],
)
def test_a_value_of_another_kind(key: str, value: Any, needed: str) -> None:
    with pytest.raises(CfgError) as caught:
        loaded({key: value, "loss.l2_weight": None})
    text = str(caught.value)
    assert "2 problems" in text
    assert "[loss] l2_weight is missing" in text
    assert needed in text
    assert key.partition(".")[2] in text


@pytest.mark.parametrize("source", ["custom", "cifar-10"])
@pytest.mark.parametrize("mode", ["reconstruction", "encoding", "generation"])
def test_other_images_need_a_dump_that_is_named(source: str, mode: str) -> None:
    changes = {"data.dataset_source": source, "data.target_res": 64, "synthesis.synthesis_mode": mode}
    with pytest.raises(CfgError, match=r"1 problem\n.*--set data.dataset=NAME"):
        loaded(changes)
    settings = loaded(changes, overrides=("data.dataset=holiday", "data.val_split=valid"))
    assert (settings.data.dataset, settings.data.val_split, settings.synthesis.split) == ("holiday", "valid", None)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("up_filters", [48] * 5, r"up_strides has 33 entries, but up_filters has 5 entries"),
        ("up_strides", [1] * 32 + [2], "nothing follows that pooling"),
        ("down_filters", [48] * 33, "skip width"),
    ],
)
def test_towers_that_do_not_fit(key: str, value: list[int], message: str) -> None:
    with pytest.raises(CfgError, match=message):
        loaded({f"model.{key}": value})


def test_overrides_take_their_keys_and_ours() -> None:
    settings = loaded(overrides=("train.total_train_steps=60000", "train.precision=bfloat16", "loss.beta=0.5"))
    assert (settings.train.steps, settings.train.precision, settings.loss.beta) == (60_000, "bfloat16", 0.5)


def test_a_mistake_in_our_keys_is_told_beside_theirs() -> None:
    with pytest.raises(CfgError, match=r"\[train\] precison = .*Did you mean 'precision'"):
        loaded(overrides=("train.precison=bfloat16",))


def test_the_settings_of_such_a_run_load_again() -> None:
    from lvae_torch.hparams import to_cfg

    settings = loaded()
    assert load_text(to_cfg(settings), "copy") == settings
