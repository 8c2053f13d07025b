"""Sample quality: the numbers are torch-fidelity's, with any number of ranks, and say how they came about."""

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import extractors
import numpy as np
import pytest
import small
import torch
from running import under_torchrun
from torch import Tensor

from lvae_torch.data.dump import Dump
from lvae_torch.errors import CfgError, DataError, NumericalError
from lvae_torch.hparams import Settings
from lvae_torch.synthesis import extractors as loading
from lvae_torch.synthesis.modes import sample_quality
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train

pytest.importorskip("torch_fidelity", reason="needs the extra 'metrics'")
N = 23


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("quality")
    small.write_dump(folder / "dumps", n_train=36)
    extractors.script(folder / "tiny.pt", extractors.Tiny())
    settings = small.settings(folder, train__steps=2, synthesis__extractor=str(folder / "tiny.pt"),
                              synthesis__quality_images=N, synthesis__n_images=N)  # fmt: skip
    train(settings)
    yield settings


def measured(settings: Settings, **changed: Any) -> dict[str, Any]:
    settings = with_synthesis(settings, **changed)
    synthesize(settings, ["sample_quality"])
    return json.loads((results(settings) / "sample_quality" / "metrics.json").read_text())


def with_synthesis(settings: Settings, **changed: Any) -> Settings:
    return replace(settings, synthesis=settings.synthesis.model_copy(update=changed))


def results(settings: Settings) -> Path:
    return Path(settings.run.runs) / settings.run.name / "synthesis"


def by_hand(samples: Tensor, reference: Tensor) -> dict[str, float]:
    """torch-fidelity from end to end, with the same network as an extractor of its own."""
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    class Own(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)
            self.network = extractors.Tiny().eval()

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features", "logits")

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> Tensor:
            return torch.zeros(1, 3, 8, 8, dtype=torch.uint8)

        @torch.no_grad()
        def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
            found = dict(zip(("features", "logits"), self.network(pixels), strict=True))
            return tuple(found[name] for name in self.features_list)

    class Pictures(torch.utils.data.Dataset[Tensor]):
        def __init__(self, images: Tensor) -> None:
            self.images = images

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, i: int) -> Tensor:
            return self.images[i]

    FEATURE_EXTRACTORS_REGISTRY.setdefault("tiny", Own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch_fidelity.calculate_metrics(  # type: ignore[no-any-return]
            input1=Pictures(samples), input2=Pictures(reference), cuda=False, batch_size=7, feature_extractor="tiny",
            fid=True, kid=True, isc=True, prc=True, kid_subset_size=N, cache=False, verbose=False, save_cpu_ram=False,
        )  # fmt: skip


def in_three(images: np.ndarray) -> Tensor:
    """uint8 (n, H, W, 1 or 3) -> (n, 3, H, W)."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()


def test_numbers_are_those_of_torch_fidelity_on_the_same_images(trained: Settings) -> None:
    ours = measured(trained)
    synthesize(trained, ["generation"])
    parts = sorted((results(trained) / "generation").glob("part_*.npz"))
    samples = in_three(np.concatenate([np.load(part)["images"] for part in parts]))
    split = Dump.open(Path(trained.data.dumps), "small").split("train")
    reference = in_three(split.gather(np.arange(36)).numpy() * np.uint8(255))
    theirs = by_hand(samples, reference)
    pairs = {
        "frechet_distance": "frechet_inception_distance", "kernel_distance": "kernel_inception_distance_mean",
        "kernel_distance_error": "kernel_inception_distance_std", "classifier_score": "inception_score_mean",
        "classifier_score_error": "inception_score_std", "precision": "precision", "recall": "recall",
    }  # fmt: skip
    for our, their in pairs.items():
        assert ours[our] == pytest.approx(theirs[their], rel=1e-3, abs=1e-9), our
    assert ours["frechet_distance"] > 0.1 and ours["classifier_score"] > 1


def test_the_protocol_and_a_warning_stand_beside_the_numbers(trained: Settings) -> None:
    found = measured(trained)
    protocol = found["protocol"]
    assert protocol["images"] == {"reference": 36, "samples": N, "reconstructions": N}
    assert protocol["reference"]["split"] == "train" and protocol["reference"]["content"]
    tiny = Path(str(trained.synthesis.extractor))
    assert protocol["extractor_sha256"] == loading.sha256_of(tiny) and protocol["extractor"] == "tiny.pt"
    assert protocol["temperatures"] == [1.0, 1.0] and protocol["seed"] == 0 and protocol["bit_depth"] == 8
    assert protocol["resize"] and "torch-fidelity" in protocol["library"]
    assert "fewer than 10,000" in found["warning"]
    assert not any("fid" in key or "inception" in key for key in found), "another extractor's numbers are not called so"


def test_reconstructions_are_measured_too(trained: Settings) -> None:
    found = measured(trained, temperature=0.0)
    assert found["frechet_distance_of_reconstructions"] < found["frechet_distance"]


def test_features_of_a_split_are_kept(trained: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    before = measured(trained)
    cache = Path(trained.data.dumps) / ".statistics"
    parts = {path: path.stat().st_mtime_ns for path in cache.rglob("part_*.npz")}
    assert parts
    shutil.rmtree(results(trained) / "sample_quality")
    after = measured(trained)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("part_*.npz")} == parts, "not computed again"
    assert after == before
    assert measured(trained, split="test")["protocol"]["images"]["reference"] == 17


def test_where_dumps_are_only_read_features_of_a_split_are_among_the_results(
    trained: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = measured(trained, seed=5)
    shutil.rmtree(results(trained) / "sample_quality")
    shutil.rmtree(Path(trained.data.dumps) / ".statistics")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert measured(trained, seed=5) == before
    assert not (Path(trained.data.dumps) / ".statistics").exists()


def test_an_interrupted_mode_goes_on(trained: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from lvae_torch.synthesis import features

    monkeypatch.setattr(features, "PER_PART", 5)
    whole, n_calls = measured(trained, seed=4), 0
    part = results(trained) / "sample_quality" / "samples" / "part_00002.npz"
    part.unlink()
    forward = loading.Extractor.__call__

    def counted(self: loading.Extractor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal n_calls
        n_calls += 1
        return forward(self, pixels)

    monkeypatch.setattr(loading.Extractor, "__call__", counted)
    assert measured(trained, seed=4) == whole
    assert n_calls == 1, "the part that is missing, alone"


@pytest.mark.slow
def test_two_ranks_equal_one(trained: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = measured(trained, batch_size=4)
    shutil.rmtree(results(trained) / "sample_quality")
    shutil.rmtree(Path(trained.data.dumps) / ".statistics")
    under_torchrun(
        "lvae_torch.synthesize", str(results(trained).parent), "--mode", "sample_quality",
        f"--set=synthesis.extractor={trained.synthesis.extractor!r}", "--set=synthesis.batch_size=4",
        f"--set=data.dumps={trained.data.dumps!r}",
    )  # fmt: skip
    two = json.loads((results(trained) / "sample_quality" / "metrics.json").read_text())
    assert two == one


def test_without_weights_one_message_tells_which(
    trained: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"weights-inception-2015-12-05-6726825d\.pth \(95\.6 MB.*https://github\.com/"):
        measured(trained, extractor=None)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / loading.PUBLISHED).write_bytes(b"<html>quota exceeded</html>")
    with pytest.raises(DataError, match="not the published weights"):
        measured(trained, extractor=None)
    with pytest.raises(DataError, match=r"nowhere\.pt: no such file"):
        measured(trained, extractor=str(tmp_path / "nowhere.pt"))


@pytest.mark.parametrize(
    ("network", "error", "told"),
    [
        (extractors.Floats(), DataError, "does not take pixels as uint8"),
        (extractors.Scalar(), DataError, "needs features"),
        (extractors.Broken(), NumericalError, "not finite"),
    ],
)
def test_extractors_that_do_not_fit_are_told(
    trained: Settings, tmp_path: Path, network: torch.nn.Module, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        measured(trained, extractor=str(extractors.script(tmp_path / "other.pt", network)))


def test_a_model_that_draws_no_numbers_has_no_quality(trained: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN would be black, and black pictures have a distance like others."""
    monkeypatch.setattr(sample_quality, "drawn", lambda *_: torch.full((7, 1, 8, 8), torch.nan))
    with pytest.raises(NumericalError, match="samples: pixels are not finite"):
        measured(trained, seed=9)


def test_a_file_of_another_kind_is_refused(trained: Settings, tmp_path: Path) -> None:
    torch.save({"weights": torch.ones(3)}, tmp_path / "weights.pt")
    with pytest.raises(DataError, match="neither the published weights"):
        measured(trained, extractor=str(tmp_path / "weights.pt"))


def test_the_library_is_asked_for(trained: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(CfgError, match=r"lvae_torch\[metrics\]"):
        measured(trained)


def test_what_a_killed_mode_left_goes_with_the_next(trained: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from lvae_torch.synthesis.features import Collection

    used: list[Path] = []
    read = Collection.read
    monkeypatch.setattr(Collection, "read", lambda self, folder: used.append(folder) or read(self, folder))
    before = measured(trained)
    used[0].mkdir()
    (used[0] / "half.npy").write_bytes(b"half")
    assert measured(trained) == before
    assert used[0].parent == results(trained) / "sample_quality" and not used[0].exists()
