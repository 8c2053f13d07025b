"""Labels on their way to training: each comes with its image, and what is no class is refused when the cfg is read."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from of_three_classes import N_TRAIN, settings, write_dump

from lvae_torch.data.loader import training_batches
from lvae_torch.data.order import TrainingOrder
from lvae_torch.data.run_data import RunData
from lvae_torch.distributed.processes import Processes
from lvae_torch.errors import CfgError
from lvae_torch.hparams import load
from lvae_torch.info import describe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dump of classes."""
    folder = tmp_path_factory.mktemp("classes")
    write_dump(folder / "dumps")
    return folder


@pytest.mark.parametrize("on_device", [False, True])
def test_each_image_comes_with_its_label(dumped: Path, on_device: bool) -> None:
    """In the order of training, on any rank."""
    data = RunData.of(settings(dumped).data, 8, 0, is_conditional=True)
    images, labels = data.split.gather(np.arange(N_TRAIN)), data.dump.labels("train")
    assert labels is not None
    for rank in range(2):
        with training_batches(data.split, data.order, Processes(rank, 2, CPU), 3, on_device) as batches:
            for step in range(3, 9):
                batch, indices = next(batches), TrainingOrder(N_TRAIN, 8, 0).batch(step)[rank::2]
                assert torch.equal(batch.images, images[indices])
                assert batch.labels is not None and np.array_equal(batch.labels, labels[indices])


def test_unconditional_runs_carry_no_labels(dumped: Path) -> None:
    data = RunData.of(small.settings(dumped).data, 8, 0)
    with training_batches(data.split, data.order, Processes(0, 1, CPU), 0) as batches:
        assert next(batches).labels is None
    assert data.classes.names == () and data.training.labels_at(np.arange(3), CPU) is None


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "several": ({"columns": 2}, r"have 2 labels each \(left, right, top, ...\).*name one column"),
    "negative": ({"shift": -1}, r"image 0 of train has label -1, and there are 3 classes, counted from 0"),
    "beyond": ({"shift": 1}, r"image 2 of train has label 3, and there are 3 classes"),
    "numbers": ({"shift": 1000, "names": None}, r"labels up to 1,002 of 40 images are no classes"),
}


@pytest.mark.parametrize("kind", [*BAD, "none"])
def test_labels_that_are_no_classes_are_told_when_the_cfg_is_read(tmp_path: Path, kind: str) -> None:
    if kind == "none":
        small.write_dump(tmp_path / "dumps")
        message = r"the images of train have no labels. Make the dump again"
    else:
        given, message = BAD[kind]
        write_dump(tmp_path / "dumps", **given)
    cfg = tmp_path / "small.cfg"
    cfg.write_text(small.CFG)
    asked = [*small.override_list(tmp_path), "model.class_embedding='top'", "val.every=-1"]
    with pytest.raises(
        CfgError, match=rf"2 problems\n(.|\n)*class_embedding needs a class for each image. .*{message}"
    ):
        load(cfg, asked, with_images=True)
    load(cfg, small.override_list(tmp_path), with_images=True)


def test_classes_without_names_are_called_by_their_numbers(tmp_path: Path) -> None:
    write_dump(tmp_path / "dumps", names=None)
    assert RunData.of(settings(tmp_path).data, 8, 0, is_conditional=True).classes.names == ("0", "1", "2")
    assert re.search(r"classes +3\n", describe(settings(tmp_path, model__batch_norm=False)))
