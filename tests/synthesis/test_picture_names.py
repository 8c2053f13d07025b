"""What the picture of an image is called: the same in every mode, and never as another one."""

from pathlib import Path

import numpy as np
import pytest
import small
from named_pictures import N_TEST, N_TRAIN, Run, settings

from lvae_torch.data.dump import Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.synthesis.singles import single_names
from lvae_torch.train import train


@pytest.mark.parametrize(
    ("names", "pictures"),
    [
        (["a.jpg", "b/c.tar.gz", "../d.png"], ["a", "b_c.tar", ".._d"]),
        (["a.jpg", "a.png"], ["000000_a", "000001_a"]),
    ],
)
def test_names_of_pictures(names: list[str], pictures: list[str]) -> None:
    assert single_names(names) == pictures


@pytest.mark.parametrize("limit", [0, 5])
def test_pictures_of_one_image_have_one_name_in_every_mode(tmp_path: Path, limit: int) -> None:
    """Also where names are ambiguous in the split, and not among the images that were encoded."""
    names = [f"{k}/{'ab'[k % 2] if k < 2 else k}.jpg" for k in range(N_TEST)]
    names[50] = "1/b.png"
    with DumpWriter(tmp_path / "dumps", "small", Layout(small.IMAGE_SHAPE, 2), {}) as writer:
        for split, n in (("train", N_TRAIN), ("test", N_TEST)):
            writer.add(split, np.zeros((n, 8, 8, 1), dtype=np.uint8), names=names[:n])
    train(settings("ladder", tmp_path, train__steps=1))
    run = Run("ladder", tmp_path)
    run.results("reconstruction", "encoding", "decoding", save_singles=True, limit=limit)
    pictures = set(run.pngs("reconstruction"))
    assert set(run.pngs("decoding")) == pictures
    assert {"000000_0_a.png", "000050_1_b.png"} <= pictures
    assert (run.out("encoding") / "names.txt").read_text().splitlines()[0] == "0\t0/a.jpg\t000000_0_a"
