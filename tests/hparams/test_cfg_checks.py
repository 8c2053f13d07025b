"""What is wrong between sections, or between a cfg and its dataset, is told with all else before anything is made."""

from pathlib import Path

import pytest
import small

from lvae_torch.errors import CfgError
from lvae_torch.hparams import load, load_text, to_cfg
from lvae_torch.train import command

BAD = """[run]
name = bad
device = cpu
deterministic = True
[data]
dataset = small
dequantize = True
binarize = dynamic
n_bits = 5
[model]
family = spatial_lvae
z_channels = [2, 3]
downsample = [3, 3]
n_filters = 4
blocks_per_layer = 3
[loss]
beta = ('linear', 10, 5, 0.1)
[optimizer]
weight_decay_on = blocks
warmup_steps = 50
final_learning_rate = 1.0
[train]
steps = 20
batch_size = 9
accumulate = 2
cudnn_benchmark = True
[val]
patience = 2
every = 0
"""


def refused(folder: Path, text: str, overrides: tuple[str, ...] = ()) -> str:
    """What `lvae train` says of a cfg; nothing may be written."""
    (folder / "bad.cfg").write_text(text)
    places = [f"--set={place}" for place in (*small.override_list(folder), *overrides)]
    with pytest.raises(CfgError) as raised:
        command([str(folder / "bad.cfg"), *places])
    assert not (folder / "runs").exists()
    return str(raised.value)


def test_everything_is_told_at_once_each_with_its_line(tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    told = refused(tmp_path, BAD)
    lines = dict(enumerate(BAD.splitlines(), start=1))
    for key in ("dequantize", "beta", "weight_decay_on", "warmup_steps", "final_learning_rate", "accumulate",
                "cudnn_benchmark", "patience"):  # fmt: skip
        number = next(n for n, line in lines.items() if line.startswith(f"{key} ="))
        found = [line for line in told.splitlines() if f"] {key}" in line and line.endswith(f"bad.cfg:{number})")]
        assert found, (key, told)
    assert told.startswith(f"{tmp_path / 'bad.cfg'}: ")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"n_bits": "5"}, r"[data] n_bits = 5: small has 2 levels, not 8 bits; leave it out."),
        ({"likelihood": "bernoulli", "dataset": "mnist"}, "needs binary images, but these have 256 levels"),
        ({"downsample": "[3, 3]"}, "[model] downsample (with initial_halving) shrinks images by 128"),
        (
            {"dequantize": "True"},
            "[data] dequantize: the likelihood of [model], bernoulli, is of levels, not a density",
        ),
        ({"family": "vqvae", "dataset": "omniglot_full"}, "sides divide by 4, but these are 105x105"),
        ({"family": "pixelcnn", "dataset": "cifar10"}, "needs images of one channel in levels, but these have 3"),
        ({"family": "ladder", "dataset": "toy2d_1a"}, "needs pixels in levels, but this data has none; use gaussian"),
        ({"dataset": "toy2d_1a", "binarize": "dynamic"}, "[data] binarize: toy2d_1a has values without levels"),
    ],
)
def test_a_cfg_is_held_against_its_dataset(tmp_path: Path, changes: dict[str, str], told: str) -> None:
    """The dump, where there is one; what is known of the dataset of that name, where there is none."""
    small.write_dump(tmp_path / "dumps")
    family = changes.get("family", "spatial_lvae")
    data = {
        "dataset": "small",
        **{k: v for k, v in changes.items() if k in ("dataset", "n_bits", "binarize", "dequantize")},
    }
    model = {"family": family, **{k: v for k, v in changes.items() if k in ("likelihood", "downsample")}}
    if family == "spatial_lvae":
        model = {"z_channels": "[2, 3]", "downsample": "[1, 1]", "blocks_per_layer": "3", **model}
    sections = {"run": {"name": "bad", "device": "cpu"}, "data": data, "model": model}
    text = "\n".join(
        f"[{name}]\n" + "\n".join(f"{k} = {v}" for k, v in keys.items()) for name, keys in sections.items()
    )
    assert told in refused(tmp_path, text)


def test_a_wrong_key_does_not_hide_what_is_wrong_between_the_others(tmp_path: Path) -> None:
    text = BAD.replace("batch_size = 9", "batch_size = 9\nlog_every = never")
    told = refused(tmp_path, text)
    assert "log_every = never" in told and "accumulate = 2 does not divide batch_size = 9" in told
    with_wrong_batch = refused(tmp_path, BAD.replace("batch_size = 9", "batch_size = nine"))
    assert "accumulate" not in with_wrong_batch, "what concerns the wrong key cannot be known"


def test_the_default_of_a_key_that_cannot_be_read_is_not_held_against_the_rest(tmp_path: Path) -> None:
    text = small.CFG.replace("dataset = small", "dataset = mnist\nbinarize = 'dynamic")
    told = refused(tmp_path, text)
    assert "1 problem" in told and "[data] binarize" in told, "whether bernoulli suits the pixels cannot be known"


def test_unknown_names_of_every_table_are_refused_with_a_guess(tmp_path: Path) -> None:
    text = small.CFG.replace("[optimizer]", "[optimizer]\nname = adamaxx\nschedule = cosin").replace(
        "n_filters = 4", "n_filters = 4\nlikelihood = bernouli"
    )
    told = refused(tmp_path, text)
    for guess in ("did you mean 'adamax'", "did you mean 'cosine'", "did you mean 'bernoulli'"):
        assert guess in told


@pytest.mark.parametrize(("limit", "read"), [("1.0", 0), ("1", 1), ("0.25", 0.25), ("20.0", 20), ("0.0", 0), ("0", 0)])
def test_a_share_of_one_is_all(limit: str, read: float) -> None:
    settings = load_text(small.CFG, "small.cfg", [f"synthesis.limit={limit}"])
    assert settings.synthesis.limit == read
    assert load_text(to_cfg(settings), "again.cfg").synthesis.limit == read


@pytest.mark.parametrize(
    ("set_", "told"),
    [
        (["balance='kl'"], "balance = kl does nothing, for it ends with balance_steps, which is 0"),
        (["balance='kl'", "balance_steps='0 epochs'"], "ends with balance_steps, which is 0 epochs"),
        (["balance_steps=5"], "balance_steps = 5 does nothing, for balance = none"),
        (["balance='kl'", "balance_steps=5"], ""),
        (["balance='kl_per_unit'", "balance_steps='2 epochs'"], ""),
        (["balance='none'", "balance_steps=0"], ""),
    ],
)
def test_balance_without_its_steps_is_told(set_: list[str], told: str) -> None:
    found = "".join(load_text(small.CFG, "small.cfg", [f"loss.{one}" for one in set_]).without_effect)
    assert (told in found) if told else found == ""


@pytest.mark.parametrize(
    ("set_", "told"),
    [
        (["optimizer.decay_start=3"], ["[optimizer] decay_start = 3 does nothing, for schedule = constant."]),
        (["optimizer.decay_start=3", "optimizer.schedule=cosine"], []),
        (
            ["optimizer.schedule=linear", "optimizer.decay_rate=0.1", "optimizer.decay_steps='2 epochs'"],
            [
                "[optimizer] decay_rate = 0.1 does nothing, for schedule = linear.",
                "[optimizer] decay_steps = 2 epochs does nothing, for schedule = linear.",
            ],
        ),
        (["train.rollback_rate=0.5"], ["[train] rollback_rate = 0.5 does nothing, for rollback = 0."]),
        (["train.rollback_rate=0.5", "train.rollback=1"], []),
        (["train.sync_batch_norm=True"], []),
        (
            ["train.sync_batch_norm=True", "model.batch_norm=False"],
            ["[train] sync_batch_norm does nothing, for the model has no batch norm."],
        ),
    ],
)
def test_what_does_nothing_is_told(set_: list[str], told: list[str]) -> None:
    assert load_text(small.CFG, "small.cfg", set_).without_effect == told


def test_a_cfg_without_its_dataset_can_be_read(tmp_path: Path) -> None:
    """Nothing is known of such images yet; what is wrong then is told when the data is there."""
    (tmp_path / "a.cfg").write_text(small.CFG.replace("dataset = small", "dataset = not_made_yet"))
    assert load(tmp_path / "a.cfg", small.override_list(tmp_path), with_images=True).data.dataset == "not_made_yet"
