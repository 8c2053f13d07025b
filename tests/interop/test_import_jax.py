"""Checkpoints of Efficient-VDVAE's JAX half: names of every published model, runs, and files that lie."""

import shutil
import struct
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from efficient_vdvae_cases import PUBLISHED
from original_cfg import original_sections, original_text
from other_programs import checkpoint_in, flax_array, flax_tree, huge_extension, import_it, jax_name, jax_shape
from test_importing import SMALL

from lvae_torch.errors import CfgError, DataError
from lvae_torch.hparams import load, load_text
from lvae_torch.interop.efficient_vdvae import data_from_reference, section_from_reference
from lvae_torch.interop.efficient_vdvae_jax import colour_last, our_name
from lvae_torch.interop.flax_state import FlaxState
from lvae_torch.training.flat import FlatParameters

STEP = 41
N_UP = SMALL["up_n_blocks_per_res"]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_tree_of_every_published_model_maps_one_to_one(name: str) -> None:
    published = PUBLISHED[name]
    section = section_from_reference(published.model, published.data, published.loss)
    with torch.device("meta"):
        model = section.build(*data_from_reference(published.data))
    blocks = published.model["up_n_blocks_per_res"]
    theirs = {jax_name(ours, blocks): ours for ours, _ in model.named_parameters()}
    assert len(theirs) == len(list(model.parameters()))  # no two of ours have one name there
    assert {our_name(path, blocks) for path in theirs} == set(theirs.values())
    assert all(our_name(path, blocks) == ours for path, ours in theirs.items())


def cfg_in(folder: Path) -> Path:
    sections = original_sections("cifar10_C1")
    sections["model"] |= SMALL
    sections["train"] |= {"total_train_steps": STEP}
    sections["optimizer"] |= {"decay_start": 2, "decay_steps": 60, "warmup_steps": 1}
    path = folder / "logs-x" / "hparams-x.cfg"
    path.parent.mkdir(parents=True)
    path.write_text(original_text(sections))
    return path


def values_of(model: Any, seed: int) -> dict[str, np.ndarray]:
    """Random arrays in the JAX half's names and shapes."""
    rng = np.random.default_rng(seed)
    return {
        jax_name(name, list(N_UP)): rng.normal(size=jax_shape(name, tuple(p.shape))).astype(np.float32)  # type: ignore[arg-type]
        for name, p in model.named_parameters()
    }


def write_state(folder: Path, has_weight_decay: bool = True) -> dict[str, dict[str, np.ndarray]]:
    """A whole train state, and what is in it."""
    cfg = cfg_in(folder)
    model = load_text(cfg.read_text(), "x", ["run.name=x"]).model.build((3, 32, 32), 256)
    parts = {part: values_of(model, seed) for seed, part in enumerate(("params", "ema_params", "mu", "nu"))}
    count, decay = np.int32(STEP), np.array(0.9999, np.float32)
    adamax = {"count": flax_array(np.array(count)), "mu": flax_tree(parts["mu"]), "nu": flax_tree(parts["nu"])}
    entries = [adamax, *([{"inner_state": {}}] if has_weight_decay else []), {"count": flax_array(np.array(count), 3)}]
    state = {
        "step": flax_array(np.array(count)), "params": flax_tree(parts["params"]),
        "opt_state": {str(i): entry for i, entry in enumerate(entries)},
        "ema_decay": flax_array(decay), "ema_params": flax_tree(parts["ema_params"]),
    }  # fmt: skip
    path = folder / "checkpoints-x" / f"checkpoint_{STEP}"
    path.parent.mkdir()
    path.write_bytes(msgpack.packb(state))
    return parts


def converted(values: dict[str, np.ndarray], ours: str) -> np.ndarray:
    array = values[jax_name(ours, list(N_UP))]  # type: ignore[arg-type]
    if array.ndim == 4:
        array = array.transpose((0, 3, 1, 2) if ours.endswith(("top_h", "bias_map")) else (3, 2, 0, 1))
    return array[colour_last(10, len(array))] if ours.startswith("output_conv") else array


@pytest.mark.parametrize("has_weight_decay", [True, False])
def test_the_whole_state_arrives(tmp_path: Path, has_weight_decay: bool) -> None:
    parts = write_state(tmp_path / "theirs", has_weight_decay)
    run = import_it(tmp_path, tmp_path / "theirs", "taken", "--exact")
    ours = checkpoint_in(run)
    assert ours["state"]["step"] == STEP
    for key, part in (("model", "params"), ("ema", "ema_params")):
        for name, tensor in ours[key].items():
            assert np.array_equal(tensor.numpy(), converted(parts[part], name)), (key, name)
    settings = load(run / "hparams.cfg")
    assert settings.train.steps == STEP and settings.optimizer.schedule == "cosine"
    model = settings.model.build((3, 32, 32), 256).to(memory_format=torch.channels_last)
    flat = FlatParameters(model)
    (moments,) = ours["optimizer"]["state"].values()
    assert float(moments["step"]) == STEP
    for key, part in (("exp_avg", "mu"), ("exp_inf", "nu")):
        for (name, _), piece in zip(model.named_parameters(), flat.pieces(moments[key]), strict=True):
            assert np.array_equal(piece.numpy(), converted(parts[part], name)), (key, name)


def test_the_average_alone(tmp_path: Path) -> None:
    parts = write_state(tmp_path / "theirs")
    ours = checkpoint_in(import_it(tmp_path, tmp_path / "theirs", "taken", "--only-average"))
    assert ours["optimizer"] is None
    assert np.array_equal(ours["model"]["top_h"].numpy(), converted(parts["ema_params"], "top_h"))
    assert ours["model"]["top_h"].data_ptr() == ours["ema"]["top_h"].data_ptr()  # written once


def test_an_array_in_chunks(tmp_path: Path) -> None:
    """As flax writes what is larger than 2^30 bytes."""
    whole = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    chunks = {str(i): flax_array(part) for i, part in enumerate(np.split(whole.ravel(), [10, 20]))}
    chunked = {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 3, "2": 4}, "chunks": chunks}
    (tmp_path / "state").write_bytes(msgpack.packb({"params": {"a": chunked, "b": flax_array(whole)}}))
    state = FlaxState(tmp_path / "state")
    assert set(state.arrays) == {"params/a", "params/b"}
    assert all(np.array_equal(state.read(array), whole) for array in state.arrays.values())


def nested(depth: int) -> bytes:
    return b"\x81\xa1a" * depth + msgpack.packb({"b": flax_array(np.zeros(2, np.float32))})


GOOD = flax_array(np.zeros((2, 3), np.float32))
HOSTILE = {
    "cut short": msgpack.packb({"params": {"a": GOOD}})[:-5],
    "something behind it": msgpack.packb({"params": {"a": GOOD}}) + b"\x00",
    "promised gigabytes": huge_extension(2**32 - 1),
    "promised entries": b"\xdf" + struct.pack(">I", 2**32 - 1) + b"\xa1a",
    "promised text": b"\x81\xdb" + struct.pack(">I", 2**32 - 1),
    "nested": nested(1000),
    "another extension": msgpack.packb({"params": {"a": msgpack.ExtType(42, b"code")}}),
    "a complex number": msgpack.packb({"params": {"a": msgpack.ExtType(2, msgpack.packb([1.0, 2.0]))}}),
    "a type that runs": msgpack.packb(
        {"params": {"a": msgpack.ExtType(1, msgpack.packb([[2], "object", b"12345678"]))}}
    ),
    "a shape too large": msgpack.packb(
        {"params": {"a": msgpack.ExtType(1, msgpack.packb([[2**40, 2**40], "float32", b"1234"]))}}
    ),
    "a negative shape": msgpack.packb({"params": {"a": msgpack.ExtType(1, msgpack.packb([[-1], "float32", b"1234"]))}}),
    "bytes of another shape": msgpack.packb(
        {"params": {"a": msgpack.ExtType(1, msgpack.packb([[2], "float32", b"1234"]))}}
    ),
    "a way out": msgpack.packb({"params": {"../a": GOOD}}),
    "a list": msgpack.packb({"params": [1, 2, 3]}),
    "a number as a key": msgpack.packb({"params": {1: GOOD}}),
    "twice the same": b"\x82" + 2 * (msgpack.packb("params") + msgpack.packb(GOOD)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_states_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(DataError, match=r"state: refused"):
        FlaxState(tmp_path / "state")


def test_any_bit_may_flip(tmp_path: Path) -> None:
    """Never anything but a whole state or a refusal, whichever bit of the structure it is."""
    content = msgpack.packb({"step": flax_array(np.array(3, np.int32)), "params": {"a": GOOD, "b": {"kernel": GOOD}}})
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "state").write_bytes(flipped)
        try:
            state = FlaxState(tmp_path / "state")
            assert all(state.read(array).shape == array.shape for array in state.arrays.values() if array.pieces)
        except DataError as error:
            assert "refused" in str(error)


def test_what_else_is_refused(tmp_path: Path) -> None:
    write_state(tmp_path / "theirs")
    checkpoint = tmp_path / "theirs" / "checkpoints-x" / f"checkpoint_{STEP}"
    alone = shutil.copy(checkpoint, tmp_path)
    with pytest.raises(DataError, match="no settings lie beside it; say which: --cfg"):
        import_it(tmp_path, alone)
    with pytest.raises(CfgError, match="--preset cifar10 is for openai/vdvae"):
        import_it(tmp_path, tmp_path / "theirs", "taken", "--preset", "cifar10")
    state = msgpack.unpackb(checkpoint.read_bytes(), strict_map_key=False)
    state["ema_params"]["top_down"]["trainable_h"] = flax_array(np.full((1, 4, 4, 8), np.nan, np.float32))
    checkpoint.write_bytes(msgpack.packb(state))
    with pytest.raises(DataError, match="top_h of the averaged weights: not all of it are finite"):
        import_it(tmp_path, tmp_path / "theirs")
    del state["ema_params"]["top_down"]["trainable_h"]
    checkpoint.write_bytes(msgpack.packb(state))
    with pytest.raises(DataError, match="top_h: missing"):
        import_it(tmp_path, tmp_path / "theirs")
    assert list((tmp_path / "runs").iterdir()) == []
