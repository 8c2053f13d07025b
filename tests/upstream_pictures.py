"""Small archives of pictures as the datasets' homes have them, with the stray files that people find in them."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from upstream import Content, Part, images

STRAY = {
    "LICENSE.txt": b"no picture",
    ".DS_Store": b"\0\0\0\1Bud1",
    "__MACOSX/._00000.png": b"\0\5\x16\7",
    "folder/._00000.jpg": b"\0\5\x16\7",
}


def encoded(picture: Image.Image | np.ndarray, kind: str = "PNG", **how: object) -> bytes:
    """The bytes of a picture file."""
    out = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture.squeeze())
    picture.save(out, kind, **how)
    return out.getvalue()


def decoded(data: bytes, mode: str = "RGB") -> np.ndarray:
    """uint8 (H, W, C) of a picture file."""
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode)).reshape(*Image.open(io.BytesIO(data)).size[::-1], -1)


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def smooth(n: int, height: int, width: int, seed: int) -> np.ndarray:
    """Colours that change slowly: their JPEGs and PNGs are small, and large ones are quickly made."""
    corners = np.random.default_rng(seed).integers(0, 256, (n, 4, 5, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((width, height), Image.Resampling.NEAREST)) for c in corners])


def _jpegs(pictures: np.ndarray) -> list[bytes]:
    return [encoded(picture, "JPEG", quality=95) for picture in pictures]


def _part(files: Mapping[str, bytes]) -> Part:
    return Part(np.stack([decoded(data) for data in files.values()]), names=list(files))


def celeba(folder: Path, n: int = 12) -> Content:
    """JPEGs of 218 x 178 pixels, the last as the partition says: 8 to train, 1 valid, 3 test; lines as on Windows."""
    noise = np.random.default_rng(n).integers(0, 256, (n, 218, 178, 3), dtype=np.uint8)
    names = [f"{k:06d}.jpg" for k in range(1, n + 1)]
    files = {f"img_align_celeba/{name}": data for name, data in zip(names, _jpegs(noise), strict=True)}
    write_zip(folder / "img_align_celeba.zip", {"img_align_celeba/": b"", **STRAY, **files})
    codes = ["0"] * (n - 4) + ["1"] + ["2"] * 3
    lines = [f"{name} {code}\r\n" for name, code in zip(names, codes, strict=True)]
    (folder / "list_eval_partition.txt").write_bytes("".join(lines).encode())
    part = _part(files)
    return {"train": part[: n - 4], "valid": part[n - 4 : n - 3], "test": part[n - 3 :]}


def celebahq(folder: Path) -> Content:
    files = {f"data1024x1024/{k:05d}.jpg": data for k, data in enumerate(_jpegs(smooth(5, 1024, 1024, 1)))}
    write_zip(folder / "data1024x1024.zip", {**STRAY, **files})
    return {"all": _part(files)}


def ffhq(folder: Path, nested: bool = False) -> Content:
    """PNGs; on its home in folders of a thousand, in most copies in one."""
    inner = "images1024x1024/" + "00000/" * nested
    files = {f"{inner}{k:05d}.png": encoded(p) for k, p in enumerate(smooth(5, 1024, 1024, 2))}
    more = {f"images1024x1024/{name}": data for name, data in STRAY.items()}
    write_zip(folder / "images1024x1024.zip", {**more, **dict(reversed(files.items()))})
    return {"all": _part(files)}


def imagenet_oord(folder: Path, side: int) -> Content:
    """Tars of folders of PNGs; their numbers are not all of one length."""
    content = {}
    for name, n in (("train", 21), ("valid", 4)):
        inner = f"{name}_{side}x{side}"
        files = {f"{inner}/{k}.png": encoded(p) for k, p in enumerate(images(n, side, 3, n), start=1)}
        write_tar(folder / f"{inner}.tar", {f"{inner}/.DS_Store": b"x", **dict(sorted(files.items()))})
        content[name] = _part(files)
    return content


def omniglot_full(folder: Path) -> Content:
    """PNGs of one bit, ink black, in folders by alphabet and character."""
    content = {}
    for seed, name in enumerate(("background", "evaluation", "background_small1", "background_small2")):
        ink = images(6, 105, 1, seed, high=2)
        files = {
            f"images_{name}/Latin/character{k // 3 + 1:02d}/{seed:04d}_{k % 3 + 1:02d}.png": encoded(
                Image.fromarray((1 - drawing[..., 0]) * np.uint8(255)).convert("1")
            )
            for k, drawing in enumerate(ink)
        }
        write_zip(folder / f"images_{name}.zip", {f"images_{name}/": b"", **files})
        content[name] = Part(ink, names=list(files))
    return content
