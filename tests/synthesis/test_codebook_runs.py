"""Codebooks in training: they resume to the bit, and looking, skipped steps and ranks do what they do to weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from running import assert_same_bits, checkpoint, stop_at
from steps import HostReads, state_of, train_step
from two_stages import IMAGES, logged, run_ranks, settings, write_colours

from lvae_torch.data.labelled import Labelled
from lvae_torch.distributed.processes import Processes
from lvae_torch.elbo.evaluation import evaluate
from lvae_torch.errors import Preempted
from lvae_torch.train import train


@pytest.mark.parametrize("switches", [
    {"model__codebook": "ema", "model__restart_after": 2, "model__start": "k_means", "train__accumulate": 2},
    {"model__restart_after": 1, "model__gradient": "rotation"},
], ids=["ema", "learned"])  # fmt: skip
def test_codebooks_resume_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switches: dict[str, Any]) -> None:
    write_colours(tmp_path)
    train(settings(tmp_path, IMAGES, run__name="whole", **switches))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(Preempted):
            train(settings(tmp_path, IMAGES, run__name="parts", **switches))
    train(settings(tmp_path, IMAGES, run__name="parts", **switches))
    whole, parts = checkpoint(tmp_path, "whole"), checkpoint(tmp_path, "parts")
    assert_same_bits(whole, parts)
    name = "quantizer.codebook." + ("averages" if "model__codebook" in switches else "moved")
    assert whole["model"][name].any()
    assert not torch.equal(whole["model"][name], whole["ema"][name])  # averaged like weights


def test_looking_at_pictures_changes_nothing(tmp_path: Path) -> None:
    """Without averaged weights the model that is shown is the one that is trained."""
    write_colours(tmp_path)
    switches = {"train__ema_decay": 0.0, "model__codebook": "ema"}
    train(settings(tmp_path, IMAGES, run__name="shown", **switches))
    train(settings(tmp_path, IMAGES, run__name="unseen", val__images=0, **switches))
    for part in ("model", "optimizer"):
        assert_same_bits(checkpoint(tmp_path, "shown")[part], checkpoint(tmp_path, "unseen")[part])


@pytest.mark.parametrize("section", [
    {"codebook": "ema", "restart_after": 1}, {"restart_after": 1}, {"levels": (8, 4)}
], ids=["ema", "learned", "levels"])  # fmt: skip
def test_a_skipped_step_leaves_no_trace_in_the_codebook(section: dict[str, Any]) -> None:
    step = train_step(small.vqvae(**section).train())
    step(small.images(8, (3, 8, 8), 256), 0)
    before = state_of(step)
    step(torch.full((8, 3, 8, 8), torch.nan), 1)
    assert all(torch.equal(old, new) for old, new in zip(before, state_of(step), strict=True))


@pytest.mark.parametrize("section", [{"codebook": "ema"}, {"gradient": "rotation"}, {"levels": (3, 4)}], ids=str)
def test_a_step_reads_nothing_back_from_the_device(section: dict[str, Any]) -> None:
    restarts = {} if "levels" in section else {"restart_after": 2}
    step = train_step(small.vqvae(**section, **restarts).train())
    counter = step.optimizer.state[step.flat.vector]["step"]
    with HostReads({counter.data_ptr()}) as reads:
        for k in range(3):
            step(small.images(8, (3, 8, 8), 256), k)
        assert reads.count == 0


@pytest.mark.slow
def test_two_ranks_train_one_codebook(tmp_path: Path) -> None:
    write_colours(tmp_path)
    cfg = IMAGES.replace("n_codes = 6", "n_codes = 6\ncodebook = ema\nrestart_after = 1")
    run_ranks(tmp_path, "lvae_torch.train", cfg, [])
    told = logged(tmp_path, "images")
    assert told["step"] == 6
    assert np.isfinite(told["val/perplexity/00"])


def test_a_rank_without_batches_adds_nothing_under_the_same_names() -> None:
    """Sums of a rank that has a batch, and of one that has none, can be added up."""
    model = small.vqvae().eval()
    x = small.images(4, model.image_shape, 256)
    summed: list[list[torch.Tensor]] = []

    class Watched(Processes):
        def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
            summed[-1].append(tensor)
            return tensor

    for batches in ([(0, Labelled(x))], []):
        summed.append([])
        evaluate(model, batches, Watched(0, 1, torch.device("cpu")), seed=0)
    with_batch, without = summed
    assert [t.shape for t in with_batch] == [t.shape for t in without]
    assert all(not t.any() for t in without)
