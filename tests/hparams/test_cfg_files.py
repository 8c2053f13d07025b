"""Cfg files as a whole: every problem at once, overrides, bases, the kept copy, and what may change between starts."""

from pathlib import Path

import pytest
import small

from lvae_torch.errors import CfgError
from lvae_torch.hparams import differences, format_differences, load, load_text, to_cfg

HEAD = "[run]\nname = x\n[data]\ndataset = d\n[model]\nfamily = spatial_lvae\n"


def test_defaults_fill_what_a_cfg_leaves_out() -> None:
    settings = load_text(HEAD, "x.cfg")
    assert settings.train.batch_size == 64
    assert settings.model.z_channels == (32, 32, 32)


def test_all_problems_come_at_once_each_with_its_line_and_remedy() -> None:
    text = """[run]
name = ../x
sed = 3
[data]
dataset = 12
n_bits = 9
[model]
family = spatial_lvae
z_channels = [32] * 2 + [0.5]
zdims = 3
downsample = __import__('os')
[loss]
freebits = 3
[optimzer]
name = adam
[optimizer]
eps = 1e400
lr = 3
[train]
steps = True
compile = 1
precision = float16
"""
    with pytest.raises(CfgError) as raised:
        load_text(text, "bad.cfg")
    message = str(raised.value)
    assert message.startswith("bad.cfg: 14 problems\n")
    for needed in (
        "name = ../x (bad.cfg:2): name is '../x'",
        "sed = 3 (bad.cfg:3): unknown key. Did you mean 'seed'?",
        "dataset = 12 (bad.cfg:5): needs text",
        "n_bits = 9 (bad.cfg:6): must be at most 8",
        "needs a whole number (element 3)",
        "zdims = 3 (bad.cfg:10): unknown key. Did you mean 'z_channels'?",
        "downsample (bad.cfg:11) contains \"__import__('os')\", which is not allowed",
        "Did you mean 'free_bits'?",
        "[optimzer] is no section. Did you mean 'optimizer'?",
        "eps (bad.cfg:17) is not a finite number",
        "Did you mean 'learning_rate'?",
        "steps = True (bad.cfg:20): needs a whole number",
        "compile = 1 (bad.cfg:21): needs True or False",
        "precision = float16 (bad.cfg:22): needs 'float32' or 'bfloat16'",
    ):
        assert needed in message, needed
    assert "pydantic" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run]\nname = x\nname = y\n", "already exists"),
        ("[run]\nname = x\n[run]\nseed = 1\n", "already exists"),
        ("\nname = x\n", "x.cfg:2: 'name = x' stands before the first section, such as [run]"),
        ("[run]\nwhat is this\n", "what is this"),
        ("[DEFAULT]\nname = x\n" + HEAD, "no section of ours"),
        ("[run]\nname = x\n[data]\ndataset = d\n", "family is missing"),
        (HEAD.replace("spatial_lvae", "spatial_lave"), "Did you mean 'spatial_lvae'"),
        (HEAD + "z_channels = []\ndownsample = []\n", "at least one latent layer"),
        (HEAD + "z_channels = [1, 2]\n", "z_channels has 2 entries and downsample 3"),
        (HEAD + "[train]\nsteps = 10\n[optimizer]\nwarmup_steps = 10\n", "takes all of"),
        (HEAD + "[optimizer]\nfinal_learning_rate = 1\n", "is above learning_rate"),
        (HEAD + "[optimizer]\ndecay_start = 500\ndecay_end = 500\n", "decay_end = 500 is not after decay_start = 500"),
        (HEAD + "[optimizer]\nwarmup_steps = 1000\ndecay_end = 500\n", "is not after warmup_steps = 1000"),
        (HEAD + "[optimizer]\nwarmup_steps = -1e3\n", "must be at least 0"),
        (HEAD + "[val]\nevery = -5\n", "must be at least 0"),
        (HEAD + "[loss]\nbeta = ('linear', 0)\n", "a finite number, or must be above 0"),
        (HEAD + "[synthesis]\nmode = []\n", "empty list"),
        (HEAD + "[synthesis]\ncheckpoint = newest\n", "use last, best"),
        (HEAD + "[synthesis]\niw_samples = 20000\n", "at most 10000"),
    ],
)
def test_a_wrong_file_is_named_with_its_problem(text: str, message: str) -> None:
    with pytest.raises(CfgError, match=r"x\.cfg") as raised:
        load_text(text, "x.cfg")
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["007", "1e5", "True", "2024-run", "a.b", "'quoted'"])
def test_a_runs_name_is_always_text(name: str) -> None:
    assert load_text(HEAD.replace("name = x", f"name = {name}"), "x").run.name == name.strip("'")


def test_floats_that_are_whole_are_counts() -> None:
    assert load_text(HEAD + "[train]\nsteps = 1e3\n", "x").train.steps == 1000


def test_lists_go_over_several_lines() -> None:
    assert load_text(HEAD + "z_channels = [1,\n    2,\n    3]\n", "x").model.z_channels == (1, 2, 3)


@pytest.mark.parametrize(
    ("override", "value"),
    [("train.steps=5", 5), (" train.steps = 2 * 3", 6), ("train.steps=max(3, 7)", 7)],
)
def test_overrides_win(override: str, value: int) -> None:
    assert load_text(HEAD + "[train]\nsteps = 1\n", "x", [override]).train.steps == value


@pytest.mark.parametrize("override", ["steps=5", "train.steps", "train-steps=5", "train.=5"])
def test_an_override_of_another_form_is_refused(override: str) -> None:
    with pytest.raises(CfgError, match=r"write section\.key=value"):
        load_text(HEAD, "x", [override])


def test_a_wrong_override_says_where_it_came_from() -> None:
    with pytest.raises(CfgError, match=r"steps = soon \(--set\): needs a whole number"):
        load_text(HEAD, "x", ["train.steps=soon"])


def test_a_base_is_refined(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "base.cfg").write_text(HEAD + "[train]\nsteps = 10\nbatch_size = 8\n")
    (tmp_path / "deep" / "middle.cfg").write_text("[base]\nfile = ../base.cfg  # all have it\n[train]\nsteps = 20\n")
    (tmp_path / "top.cfg").write_text("[base]\nfile = 'deep/middle.cfg'\n[run]\nname = top\n")
    settings = load(tmp_path / "top.cfg")
    assert (settings.run.name, settings.train.steps, settings.train.batch_size) == ("top", 20, 8)


def test_bases_that_loop_or_are_missing_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text("[base]\nfile = b.cfg\n")
    (tmp_path / "b.cfg").write_text("[base]\nfile = a.cfg\n")
    with pytest.raises(CfgError, match=r"form a loop: .*a\.cfg -> .*b\.cfg -> .*a\.cfg"):
        load(tmp_path / "a.cfg")
    (tmp_path / "b.cfg").write_text("[base]\nfile = nothing.cfg\n")
    with pytest.raises(CfgError, match=r"nothing\.cfg \(base of .*b\.cfg\): cannot be read"):
        load(tmp_path / "a.cfg")


def test_a_folder_or_a_misspelt_name_in_place_of_a_cfg_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "hparams.cfg").write_text(HEAD)
    with pytest.raises(CfgError) as raised:
        load(tmp_path / "runs" / "x")
    kept = tmp_path / "runs" / "x" / "hparams.cfg"
    assert str(raised.value) == f"{tmp_path / 'runs' / 'x'}: a folder, where a .cfg file is needed. In it: {kept}"
    with pytest.raises(CfgError) as raised:
        load(tmp_path / "runs")
    assert str(raised.value) == f"{tmp_path / 'runs'}: a folder, where a .cfg file is needed. It has none."
    with pytest.raises(CfgError) as raised:
        load(tmp_path / "runs" / "x" / "hparam.cfg")
    wanted = tmp_path / "runs" / "x" / "hparam.cfg"
    assert str(raised.value) == f"{wanted}: cannot be read, for it is not there. Did you mean {kept}?"
    with pytest.raises(CfgError) as raised:
        load(tmp_path / "elsewhere" / "a.cfg")
    assert str(raised.value) == f"{tmp_path / 'elsewhere' / 'a.cfg'}: cannot be read, for it is not there."


def test_a_guess_ends_with_its_question_mark() -> None:
    with pytest.raises(CfgError) as raised:
        load_text(HEAD + "likelihood = bernouli\n", "x.cfg")
    assert str(raised.value).endswith("'discretized_logistic_mixture' (did you mean 'bernoulli'?).")


def test_the_kept_copy_loads_to_the_same_settings(tmp_path: Path) -> None:
    odd = {
        "run__name": "007",
        "data__dumps": "a 'b' #c",
        "optimizer__clip_norm": None,
        "synthesis__mode": ("encoding",),
    }
    for settings in (small.settings(tmp_path), load_text(HEAD, "x"), small.settings(tmp_path, train__steps=3)):
        assert load_text(to_cfg(settings), "copy") == settings
    changed = load_text(HEAD, "x", [f"{k.replace('__', '.')}={v!r}" for k, v in odd.items()])
    assert load_text(to_cfg(changed), "copy") == changed
    assert changed.data.dumps == "a 'b' #c"


def test_differences_say_what_is_refused(tmp_path: Path) -> None:
    saved = small.settings(tmp_path)
    new = small.settings(
        tmp_path, model__n_filters=8, data__flip=True, data__on_device=True, run__seed=1, train__steps=9, val__every=1
    )
    changes = {(c.section, c.key): c.is_refused for c in differences(saved, new)}
    assert changes == {
        ("model", "n_filters"): True,
        ("data", "flip"): True,
        ("data", "on_device"): False,
        ("run", "seed"): True,
        ("train", "steps"): False,
        ("val", "every"): False,
    }
    table = format_differences(differences(saved, new))
    assert "[model] n_filters" in table
    assert "asked for" in table
    assert differences(saved, saved) == []
