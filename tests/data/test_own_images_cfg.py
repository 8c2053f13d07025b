"""From a folder of pictures to samples, by the cfg and the commands of the manual."""

import io
from pathlib import Path

import pytest
from PIL import Image
from test_images_recipe import noise, write_folder
from test_viewing import matrix_profile
from upstream_pictures import encoded

from data_scripts.commands import command as data
from lvae_torch.data.dump import Dump
from lvae_torch.synthesize import command as synthesize
from lvae_torch.train import command as train

SMALL = ["optimizer.warmup_steps=0",
         "model.n_filters=8", "train.steps=6", "train.batch_size=8", "val.every=3", "train.checkpoint_every=3",
         "model.blocks_per_layer=1", "model.z_channels=[2,2,2]", "model.downsample=[1,1,1]"]  # fmt: skip


def phone_pictures(n: int) -> dict[str, bytes]:
    """What a telephone leaves: JPEGs lying on their side, with Display P3 (of a power curve); HEIC, drawings, a GIF."""
    import pillow_heif

    exif, files = Image.Exif(), dict[str, bytes]()
    exif[0x0112] = 6
    for k in range(n):
        picture = Image.fromarray(noise(5, 6, k)).resize((48, 40), Image.Resampling.BICUBIC)
        profile = matrix_profile(2.2, "p3")
        files[f"{'cats' if k % 2 else 'dogs'}/IMG_{k}.JPG"] = encoded(
            picture, "JPEG", quality=95, exif=exif.tobytes(), icc_profile=profile
        )
    out = io.BytesIO()
    pillow_heif.from_pillow(picture).save(out, format="HEIF")
    files["cats/IMG_x.HEIC"] = out.getvalue()
    drawing = Image.new("RGBA", (40, 40))
    drawing.paste((0, 0, 0, 255), (8, 8, 30, 30))
    files["dogs/logo.png"] = encoded(drawing)
    moving = [Image.fromarray(noise(40, 40, k)) for k in (1, 2)]
    files["cats/a.gif"] = encoded(moving[0], "GIF", save_all=True, append_images=moving[1:])
    files["dogs/broken.jpg"] = files["dogs/IMG_0.JPG"][:600]
    files["preview.png"] = encoded(noise(40, 40, 3))
    return files


@pytest.mark.slow
def test_a_folder_of_phone_pictures_becomes_samples(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str], at_once: None
) -> None:
    source = write_folder(tmp_path / "phone", phone_pictures(196))
    dumps, runs = str(tmp_path / "dumps"), str(tmp_path / "runs")
    asked = [
        "images",
        "--source",
        str(source),
        *["--name", "own_images", "--size", "32", "--frames", "first"],
        "--dumps",
        dumps,
    ]
    data([*asked, "--frames", "first", "--skip-damaged", "1"])
    said = capsys.readouterr().out
    told = {
        "seen 201, taken 200, left out 1",
        "1 damaged: dogs/broken.jpg",
        "1 with transparency",
        "196 with a colour",
        "1 without a class: label -1: preview.png",
        "1 frames behind the first",
    }
    assert not [part for part in told if part not in said], said
    assert Dump.open(tmp_path / "dumps", "own_images").counts == {"train": 180, "valid": 20}
    settings = [f"data.dumps={dumps}", f"run.runs={runs}", *SMALL]
    flags = [word for setting in settings for word in ("--set", setting)]
    train([str(repository / "egs" / "own_images.cfg"), *flags])
    for mode in ("reconstruction", "generation"):
        synthesize(["own_images", "--runs", runs, "--mode", mode])
        assert list((tmp_path / "runs" / "own_images" / "synthesis" / mode).glob("*.png"))
