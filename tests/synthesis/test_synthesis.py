"""The inference modes, on a run of a few steps: numbers against the objectives, files as documented, any world size."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small
from PIL import Image
from running import out, results, under_torchrun
from safetensors.numpy import load_file
from small import N_TEST

from lvae_torch import synthesize as synthesize_module
from lvae_torch.data.dump import Dump
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import read_json
from lvae_torch.runs.locks import held
from lvae_torch.synthesis.modes import MODES, runner
from lvae_torch.synthesis.parts import Parts, read_part
from lvae_torch.synthesis.section import SynthesisSection


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_reconstruction_reads_every_image_once(folder: Path) -> None:
    metrics = results(folder, "reconstruction", synthesis__save_singles=True)
    assert metrics["n_images"] == N_TEST
    assert metrics["nelbo"] == pytest.approx(metrics["nll"] + sum(metrics["kl_per_layer"]))
    assert metrics["bits_per_dim"] == pytest.approx(metrics["nelbo"] / (64 * np.log(2)))
    parts = [read_part(path) for path in sorted(out(folder, "reconstruction").glob("part_*.npz"))]
    of_each = np.concatenate([part["nll"] + part["kl"].sum(axis=1) for part in parts])
    assert metrics["nelbo"] == pytest.approx(of_each.mean())
    assert metrics["standard_error"] == pytest.approx(np.sqrt(np.var(of_each) / (N_TEST - 1)))
    assert -1 <= metrics["ssim"] <= 1
    assert {metrics[k] for k in ("run", "dataset", "split", "weights")} == {"small", "test", "ema"}
    assert len(list((out(folder, "reconstruction") / "singles").glob("*.png"))) == N_TEST
    pairs = picture(out(folder, "reconstruction") / "reconstructions.png")
    assert pairs.ndim == 3


def test_the_elbo_is_that_of_the_last_evaluation_up_to_its_noise(folder: Path) -> None:
    lines = (folder / "runs" / "small" / "metrics.jsonl").read_text().splitlines()
    last = [json.loads(line) for line in lines if "val/nelbo" in line][-1]["val/nelbo"]
    assert results(folder, "reconstruction")["nelbo"] == pytest.approx(last, rel=0.1)


def test_kernels_are_chosen_as_in_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[tuple[bool, bool, str]] = []
    monkeypatch.setattr(
        synthesize_module,
        "choose_kernels",
        lambda section, is_deterministic, device: chosen.append((section.tf32, is_deterministic, device.type)),
    )
    results(folder, "generation", train__tf32=False, run__deterministic=True, synthesis__n_images=1)
    assert chosen == [(False, True, "cpu")]


def test_generation_is_seeded_and_keeps_its_number(folder: Path) -> None:
    metrics = results(folder, "generation", synthesis__temperature=("linear", 1.0, 0.5), synthesis__save_singles=True)
    assert metrics["temperatures"] == [1.0, 0.5]
    first = [read_part(p)["images"] for p in sorted(out(folder, "generation").glob("part_*.npz"))]
    assert sum(map(len, first)) == 7
    assert first[0].shape[1:] == (8, 8, 1)
    for path in out(folder, "generation").glob("part_*.npz"):
        path.unlink()
    results(folder, "generation", synthesis__temperature=("linear", 1.0, 0.5))
    again = [read_part(p)["images"] for p in sorted(out(folder, "generation").glob("part_*.npz"))]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other = results(folder, "generation", synthesis__seed=1)
    assert other["temperatures"] == [1.0, 1.0]
    changed = [read_part(p)["images"] for p in sorted(out(folder, "generation").glob("part_*.npz"))]
    assert not np.array_equal(first[0], changed[0])


def test_generation_and_decoding_need_no_dump(folder: Path) -> None:
    results(folder, "encoding")
    shutil.rmtree(folder / "dumps")
    assert results(folder, "generation")["n_images"] == 7
    assert results(folder, "decoding")["n_images"] == N_TEST
    with pytest.raises(DataError, match="no dump of that name"):
        results(folder, "reconstruction")


@pytest.mark.parametrize("file_format", ["safetensors", "npz"])
def test_decoded_encodings_are_the_reconstructions(folder: Path, file_format: str) -> None:
    """Encode all, decode all: the pictures that the model makes of the same latents."""
    index = results(folder, "encoding", synthesis__shard_format=file_format)
    assert [len(index["parts"]), index["latent_shapes"]] == [4, [[3, 1, 1], [2, 2, 2]]]
    load = load_file if file_format == "safetensors" else read_part
    parts = [load(out(folder, "encoding") / name) for name in index["parts"]]
    assert np.array_equal(np.concatenate([p["indices"] for p in parts]), np.arange(N_TEST))
    z, mean, log_std = (np.concatenate([p[f"{name}.1"] for p in parts])
                        for name in ("z", "posterior_mean", "posterior_log_std"))  # fmt: skip
    assert z.shape == mean.shape == log_std.shape == (N_TEST, 2, 2, 2)
    assert 0.3 < np.std((z - mean) / np.exp(log_std)) < 1.7
    results(folder, "decoding")
    images = np.concatenate([read_part(p)["images"] for p in sorted(out(folder, "decoding").glob("part_*.npz"))])
    truth = Dump.open(folder / "dumps", "small").split("test").gather(np.arange(N_TEST)).numpy()[..., 0] * 255.0
    error, chance = np.abs(images[..., 0] - truth).mean(), np.abs(images[::-1, ..., 0] - truth).mean()
    assert images.shape == (N_TEST, 8, 8, 1)
    assert error <= chance + 1


def test_a_mode_that_another_process_is_in_is_refused(folder: Path) -> None:
    """Two that write parts of different options into one folder would report a mixture."""
    lock = out(folder, "likelihood").with_name("likelihood.lock")
    with held(lock, lock.with_suffix(""), ""), pytest.raises(CfgError, match="synthesis/likelihood: in use by process"):
        results(folder, "likelihood")
    results(folder, "likelihood")


def test_a_refused_mode_leaves_no_folder(folder: Path) -> None:
    with pytest.raises(CfgError, match="no encodings there"):
        results(folder, "decoding")
    assert not out(folder, "decoding").exists()


def test_a_limited_split_is_spread_over_the_whole_of_it(folder: Path) -> None:
    results(folder, "encoding", synthesis__limit=5)
    part = load_file(out(folder, "encoding") / "part_00000.safetensors")
    assert part["indices"].tolist() == [0, 4, 8, 12, 16]


def test_layer_inspection_draws_one_picture_per_layer(folder: Path) -> None:
    metrics = results(folder, "layer_inspection")
    assert [layer["latent_shape"] for layer in metrics["layers"]] == [[3, 1, 1], [2, 2, 2]]
    shapes = {picture(out(folder, "layer_inspection") / layer["picture"]).shape for layer in metrics["layers"]}
    side = 3 * (56 + 2) + 2
    assert shapes == {(side, side, 3)}


def test_two_ranks_write_what_one_writes(folder: Path) -> None:
    """Parts belong to images, not to ranks."""
    modes = ("div_stats", "generation", "encoding", "decoding", "likelihood", "reconstruction", "progressive")
    pruned = {"synthesis__keep_fraction": 0.5, "synthesis__temperatures": ((1.0, 0.5), 0.7)}
    alone = {mode: results(folder, mode, **pruned) for mode in modes}
    files = {mode: contents(out(folder, mode)) for mode in modes}
    for mode in modes:
        shutil.rmtree(out(folder, mode))
    cfg = folder / "small.cfg"
    cfg.write_text(small.CFG)
    sets = [part for item in small.override_list(folder, pruned) for part in ("--set", item)]
    asked = [part for mode in modes for part in ("--mode", mode)]
    under_torchrun("lvae_torch.synthesize", str(cfg), *sets, *asked)
    for mode in modes:
        together = read_json(out(folder, mode) / "metrics.json")
        for key, value in alone[mode].items():
            assert together[key] == (pytest.approx(value) if isinstance(value, float) else value), (mode, key)
        for name, arrays in contents(out(folder, mode)).items():
            for key, array in arrays.items():
                np.testing.assert_array_equal(array, files[mode][name][key])


def contents(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    load = {".npz": read_part, ".safetensors": load_file}
    return {str(p.relative_to(folder)): load[p.suffix](p) for p in sorted(folder.rglob("part_*"))}


def test_a_checkpoint_of_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(CfgError, match=r"trained with another \[model\]"):
        results(folder, "generation", model__n_filters=8)


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lvae train CFG"):
        results(tmp_path, "generation")


def test_a_checkpoint_that_is_not_there_names_those_that_are(folder: Path) -> None:
    with pytest.raises(DataError, match="6"):
        results(folder, "generation", synthesis__checkpoint="5")


def test_decoding_refuses_what_is_no_encoding(folder: Path) -> None:
    with pytest.raises(CfgError, match="no encodings there"):
        results(folder, "decoding")
    results(folder, "encoding")
    path = out(folder, "encoding") / "part_00001.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"part_00001.safetensors: missing or damaged"):
        results(folder, "decoding")


def test_raw_weights_and_older_checkpoints_can_be_used(folder: Path) -> None:
    assert results(folder, "generation", synthesis__use_ema=False)["weights"] == "raw"
    assert results(folder, "generation", synthesis__checkpoint="4")["step"] == 4
    assert results(folder, "generation", synthesis__checkpoint="best")["step"] in (3, 6)


def test_parts_know_their_own(tmp_path: Path) -> None:
    parts, others = Parts(tmp_path, "a"), Parts(tmp_path, "b")
    parts.write(0, {"x": np.arange(3)})
    assert (parts.is_done(0), others.is_done(0), parts.is_done(1)) == (True, False, False)
    assert parts.read(0)["x"].tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="belongs to other results"):
        others.read(0)
    others.prepare(1)
    assert not parts.path(0).exists()


def test_every_mode_is_a_setting() -> None:
    for mode in MODES:
        assert SynthesisSection(mode=mode).modes == (mode,)
        assert callable(runner(mode))
    with pytest.raises(ValueError, match="did you mean 'generation'"):
        SynthesisSection(mode="generations")
