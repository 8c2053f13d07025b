"""Files of other programs that were damaged anywhere, or lie: a run, or a refusal by name that leaves nothing."""

import json
import pickle
import shutil
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from other_programs import VDVAE, flax_array, import_it, vdvae_model, vdvae_state, write_vdvae
from test_import_jax import write_state

from lvae_torch.errors import CfgError, DataError, UserError
from lvae_torch.interop.collect import recognised
from lvae_torch.interop.flax_state import FlaxState
from lvae_torch.interop.runs import read_run

LADDER = Path(__file__).resolve().parents[1] / "golden" / "ladder_vae_pytorch" / "a"
WAYS = 6  # damages of each file
Damage = Callable[[Path], Path]


def of_vdvae(name: str) -> Damage:
    def lay(folder: Path) -> Path:
        write_vdvae(folder)
        return folder / name

    return lay


def of_vdvae_before_torch_1_6(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(VDVAE))
    torch.save(vdvae_state(vdvae_model(0)), folder / "a-model-ema.th", _use_new_zipfile_serialization=False)
    return folder / "a-model-ema.th"


def of_jax(folder: Path) -> Path:
    write_state(folder)
    return next((folder / "checkpoints-x").iterdir())


def of_ladder(name: str) -> Damage:
    def lay(folder: Path) -> Path:
        shutil.copytree(LADDER, folder)
        return folder / name

    return lay


def zipped(folder: Path) -> Path:
    write_vdvae(folder / "inside")
    with zipfile.ZipFile(folder / "run.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / "inside").iterdir()):
            archive.write(path, path.name)
    shutil.rmtree(folder / "inside")
    return folder / "run.zip"


FORMS: dict[str, Damage] = {
    "raw": of_vdvae("iter-140-model.th"), "moments": of_vdvae("iter-140-opt.th"), "log": of_vdvae("iter-140-log.jsonl"),
    "legacy": of_vdvae_before_torch_1_6, "flax": of_jax, "flags": of_ladder("config.pkl"),
    "ladder": of_ladder("model_30000.pt"), "archive": zipped,
}  # fmt: skip


def damages(whole: bytes, seed: int) -> Iterator[bytes]:
    """Cut short, bits flipped, or a stretch of noise; half of them near an end, where the structure is."""
    rng = np.random.default_rng(seed)
    for i in range(WAYS):
        reach = len(whole) if i % 2 else min(len(whole), 400)
        at = int(rng.integers(reach)) if i % 4 < 2 else len(whole) - 1 - int(rng.integers(reach))
        damaged = bytearray(whole)
        if i % 3 == 0:
            del damaged[at:]
        elif i % 3 == 1:
            damaged[at] ^= 1 << int(rng.integers(8))
        else:
            damaged[at : at + 20] = rng.bytes(20)
        yield bytes(damaged)


@pytest.mark.parametrize("form", FORMS)
def test_damage_anywhere_is_refused_by_name_or_does_no_harm(tmp_path: Path, form: str) -> None:
    """Everything is read and put together; nothing but our own errors comes out."""
    path = FORMS[form](tmp_path / "theirs")
    whole, scratch = path.read_bytes(), tmp_path / "scratch"
    scratch.mkdir()
    n_refused = 0
    for content in damages(whole, seed=sum(map(ord, form))):
        path.write_bytes(content)
        try:
            with recognised(path if form == "archive" else tmp_path / "theirs", scratch) as found:
                taken = read_run(found)
                for part in (taken.raw, taken.averaged, *(taken.moments.parts.values() if taken.moments else ())):
                    assert part is None or all(tensor.shape is not None for _, tensor in part())
        except UserError as error:
            n_refused += 1
            assert any(name in str(error) for name in (path.name, "theirs", "iter-140", "hyper-param")), error
        assert list(scratch.iterdir()) == []
    assert n_refused > 0 or form == "log"  # of a log damaged lines are passed over


def lying_tensor(**how: Any) -> torch.Tensor:
    """One number that stands at every place of a shape of petabytes."""
    return torch.zeros(1).as_strided((2**40, 2**10), (0, 0), **how)


HOSTILE_STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a shape of petabytes": lambda state: state.update({"decoder.gain": lying_tensor()}),
    "a sparse tensor": lambda state: state.update({"decoder.gain": torch.eye(3).to_sparse()}),
    "a tensor without memory": lambda state: state.update({"decoder.gain": torch.empty(3, device="meta")}),
    "whole numbers": lambda state: state.update({"decoder.gain": state["decoder.gain"].long()}),
    "no number": lambda state: state["decoder.gain"].fill_(float("nan")),
    "a text": lambda state: state.update({"decoder.gain": "text"}),
    "a number as a name": lambda state: state.update({7: torch.zeros(1)}),
}


@pytest.mark.parametrize("what", HOSTILE_STATES)
def test_lying_weights_are_refused(tmp_path: Path, what: str) -> None:
    write_vdvae(tmp_path / "theirs")
    path = tmp_path / "theirs" / "iter-140-model.th"
    state = vdvae_state(vdvae_model(0))
    HOSTILE_STATES[what](state)
    torch.save(state, path)
    with pytest.raises(DataError):
        import_it(tmp_path, path)
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("dataset", ["cifar10"], "no data set of openai/vdvae"),
        ("width", 10**9, "these hyper-parameters make no model|whole number"),
        ("seed", "x", "value of another kind"),
        ("num_epochs", None, "value of another kind"),
        ("image_size", "big", "no side of an image"),
        ("enc_blocks", {"a": 1}, "enc_blocks"),
        ("lr", float("nan"), "learning_rate"),
    ],
)
def test_lying_hyper_parameters_are_refused(tmp_path: Path, key: str, value: object, told: str) -> None:
    write_vdvae(tmp_path / "theirs")
    (tmp_path / "theirs" / "iter-140-log.jsonl").unlink()
    (tmp_path / "theirs" / "hparams.json").write_text(json.dumps({**VDVAE, key: value}))
    with pytest.raises((CfgError, DataError), match=told):
        import_it(tmp_path, tmp_path / "theirs")
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("optimizer", [[], {"state": []}, {"state": {0: 3}}, {"state": {0: {"step": "x"}}}])
def test_an_optimizer_of_another_form_is_refused_or_left_out(tmp_path: Path, optimizer: object) -> None:
    write_vdvae(tmp_path / "theirs")
    if isinstance(optimizer, dict):
        torch.save({"param_groups": [3], **optimizer}, tmp_path / "theirs" / "iter-140-opt.th")
        with pytest.raises(DataError, match="exp_avg of input_conv"):
            import_it(tmp_path, tmp_path / "theirs")


@pytest.mark.parametrize("steps", [-3, float("nan"), 1e30, 0.5])
def test_a_state_counts_in_whole_steps(tmp_path: Path, steps: float) -> None:
    array = flax_array(np.array(steps, np.float32))
    (tmp_path / "state").write_bytes(msgpack.packb({"step": array, "params": {}}))
    with pytest.raises(DataError, match="no number of steps"):
        FlaxState(tmp_path / "state").count("step")
    (tmp_path / "state").write_bytes(msgpack.packb({"step": 7, "params": {"a": 5}}))  # as flax writes plain numbers
    state = FlaxState(tmp_path / "state")
    assert state.count("step") == 7
    with pytest.raises(DataError, match="a plain number stands where an array belongs"):
        state.read(state.arrays["params/a"])


def test_odd_members_of_an_archive(tmp_path: Path) -> None:
    """Links, ways out, names too long and locked ones make no file; a damaged one is told."""
    write_vdvae(tmp_path / "theirs")
    link = zipfile.ZipInfo("checkpoint_1")
    link.external_attr = 0o120777 << 16
    path = tmp_path / "run.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a" * 300, b"long")
        archive.writestr("../../../out", b"out")
        for file in (tmp_path / "theirs").iterdir():
            archive.write(file, file.name)
    import_it(tmp_path, path)
    assert not (tmp_path.parents[1] / "out").exists()
    content = bytearray(path.read_bytes())
    at = content.index(b"iter-140-model.th") + 200
    content[at : at + 50] = bytes(50)
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"run\.zip|iter-140"):
        import_it(tmp_path, path, "again")
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["taken"]


def test_flags_that_would_run_code_or_refer_outside(tmp_path: Path) -> None:
    shutil.copytree(LADDER, tmp_path / "theirs")
    flags = tmp_path / "theirs" / "config.pkl"
    for content in (
        pickle.dumps(Namespace(z_dims=print)),
        b"\x80\x04cposix\nsystem\n(S'touch sprung'\ntR.",
        b"\x80\x04cargparse\nArgumentParser\n)R.",
    ):
        flags.write_bytes(content)
        with pytest.raises(DataError, match="would run code"):
            import_it(tmp_path, flags)
