"""Small files in the exact formats of the datasets' homes, and what is in them. Pictures are in ``upstream_pictures``.

Each function lays its files into a folder and returns what they hold, by upstream's own names for the parts.
"""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Part:
    """Images, uint8 (n, H, W, C) mostly, and what is known of each."""

    images: np.ndarray
    labels: np.ndarray | None = None
    names: list[str] | None = None

    def __getitem__(self, order: Any) -> "Part":
        names = None if self.names is None else np.array(self.names)[order].tolist()
        return Part(self.images[order], None if self.labels is None else self.labels[order], names)

    def __add__(self, other: "Part") -> "Part":
        assert self.labels is None and self.names is None
        return Part(np.concatenate([self.images, other.images]))


Content = dict[str, Part]


def images(n: int, side: int, channels: int, seed: int, high: int = 256) -> np.ndarray:
    """Noise, so that no two images are alike and none is like its mirror image or its transpose."""
    return np.random.default_rng(seed).integers(0, high, (n, side, side, channels), dtype=np.uint8)


def classes(n: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, n)


def planar(array: np.ndarray) -> np.ndarray:
    """(n, H, W, 3) as rows of a red, a green and a blue plane."""
    return np.stack([np.concatenate([image[..., c].reshape(-1) for c in range(3)]) for image in array])


# --- MNIST and those like it ------------------------------------------------------------------------------------------


def amat(array: np.ndarray) -> bytes:
    """The text of binarized MNIST."""
    return "".join(" ".join(map(str, image.flatten().tolist())) + "\n" for image in array).encode()


def binarized_mnist(folder: Path) -> Content:
    content = {
        name: Part(images(n, 28, 1, seed, high=2))
        for seed, (name, n) in enumerate({"train": 50, "valid": 10, "test": 20}.items())
    }
    for name, part in content.items():
        (folder / f"binarized_mnist_{name}.amat").write_bytes(amat(part.images))
    return content


def idx(array: np.ndarray) -> bytes:
    magic = {1: 2049, 3: 2051}[array.ndim]
    return gzip.compress(struct.pack(">" + "i" * (1 + array.ndim), magic, *array.shape) + array.tobytes())


def mnist(folder: Path, seed: int = 0) -> Content:
    content = {}
    for name, n in (("train", 30), ("t10k", 14)):
        content[name] = Part(images(n, 28, 1, seed + n), classes(n, 10, seed + n))
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(content[name].images[..., 0]))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(content[name].labels.astype(np.uint8)))
    return content


def fashion_mnist(folder: Path) -> Content:
    return mnist(folder, seed=1000)


def omniglot(folder: Path) -> Content:
    """Columns are images, and pixels column-major; labels are one-hot."""
    from scipy.io import savemat

    content, variables = {}, {}
    for prefix, n in (("", 1400), ("test", 9)):
        part = Part(images(n, 28, 1, n, high=3) * np.uint8(127), classes(n, 50, n))
        columns = [image[..., 0].flatten(order="F") / 255 for image in part.images]
        variables[f"{prefix}data"] = np.stack(columns, axis=1)
        variables[f"{prefix}target"] = np.eye(50)[part.labels].T
        variables[f"{prefix}targetchar"] = np.zeros((1, n))
        content[prefix or "data"] = part
    savemat(folder / "chardata.mat", variables, do_compression=True)
    return content


# --- SVHN, small NORB -------------------------------------------------------------------------------------------------


def svhn_mat(part: Part, compressed: bool = True) -> bytes:
    """X (32, 32, 3, N) and y (N, 1), in which the digit 0 is 10."""
    from scipy.io import savemat

    labels = np.where(part.labels == 0, 10, part.labels).astype(np.uint8)[:, None]
    out = io.BytesIO()
    savemat(out, {"X": np.stack(list(part.images), axis=3), "y": labels}, do_compression=compressed)
    return out.getvalue()


def svhn(folder: Path) -> Content:
    content = {}
    for name, n in (("train", 25), ("test", 12), ("extra", 7)):
        content[name] = Part(images(n, 32, 3, n), np.arange(n) % 10)
        (folder / f"{name}_32x32.mat").write_bytes(svhn_mat(content[name], compressed=name != "test"))
    return content


def norb_matrix(array: np.ndarray) -> bytes:
    """The binary matrix format; at least three dimensions are written."""
    magic = {np.dtype(np.uint8): 0x1E3D4C55, np.dtype(np.int32): 0x1E3D4C54}[array.dtype]
    shape = [*array.shape, 1, 1, 1][: max(3, array.ndim)]
    return gzip.compress(struct.pack("<ii", magic, array.ndim) + struct.pack("<" + "i" * len(shape), *shape)
                         + array.tobytes())  # fmt: skip


def small_norb(folder: Path) -> Content:
    content = {}
    for name, n in (("5x46789x9x18x6x2x96x96-training", 7), ("5x01235x9x18x6x2x96x96-testing", 4)):
        pictures, labels = images(2 * n, 96, 1, n), classes(n, 5, n)
        arrays = {
            "dat": pictures.reshape(n, 2, 96, 96),
            "cat": labels.astype(np.int32),
            "info": np.zeros((n, 4), dtype=np.int32),
        }
        for kind, array in arrays.items():
            (folder / f"smallnorb-{name}-{kind}.mat.gz").write_bytes(norb_matrix(array))
        content[name.rpartition("-")[2]] = Part(pictures, np.repeat(labels, 2))
    return content


# --- CIFAR-10 and the course's archive --------------------------------------------------------------------------------


def python2_pickle(values: Mapping[str, Any]) -> bytes:
    """As Python 2 wrote it, protocol 2: text and the bytes of arrays are byte strings, and NumPy's modules old."""
    out = [pickle.PROTO + b"\2", pickle.EMPTY_DICT, pickle.MARK]
    for key, value in values.items():
        out += [_bytes2(key.encode()), _value2(value)]
    return b"".join([*out, pickle.SETITEMS, pickle.STOP])


def _bytes2(text: bytes) -> bytes:
    return pickle.BINSTRING + struct.pack("<i", len(text)) + text


def _value2(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return _array2(value)
    if isinstance(value, str):
        return _bytes2(value.encode())
    if isinstance(value, list):
        return pickle.EMPTY_LIST + pickle.MARK + b"".join(map(_value2, value)) + pickle.APPENDS
    return pickle.BININT + struct.pack("<i", value)


def _array2(array: np.ndarray) -> bytes:
    def tuple_of(*items: bytes) -> bytes:
        return pickle.MARK + b"".join(items) + pickle.TUPLE

    ndarray = pickle.GLOBAL + b"numpy\nndarray\n"
    empty = tuple_of(ndarray, tuple_of(_value2(0)), _bytes2(b"b"))
    made = pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n" + empty + pickle.REDUCE
    dtype = pickle.GLOBAL + b"numpy\ndtype\n" + tuple_of(_bytes2(b"u1"), _value2(0), _value2(1)) + pickle.REDUCE
    dtype_state = [_value2(3), _bytes2(b"|"), pickle.NONE, pickle.NONE, pickle.NONE, *map(_value2, (-1, -1, 0))]
    dtype += tuple_of(*dtype_state) + pickle.BUILD
    shape = tuple_of(*map(_value2, array.shape))
    state = tuple_of(_value2(1), shape, dtype, pickle.NEWFALSE, _bytes2(array.tobytes()))
    return made + state + pickle.BUILD


def tar_gz(files: Mapping[str, bytes], folders: tuple[str, ...] = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name in folders:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def cifar10(folder: Path) -> Content:
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    content = {name: Part(images(20, 32, 3, k), classes(20, 10, k)) for k, name in enumerate(names)}
    inner = "cifar-10-batches-py"
    files = {
        f"{inner}/{name}": python2_pickle(
            {
                "batch_label": name,
                "labels": part.labels.tolist(),
                "data": planar(part.images),
                "filenames": [f"picture_{k}.png" for k in range(20)],
            }
        )
        for name, part in content.items()
    }
    files[f"{inner}/batches.meta"] = python2_pickle({"num_vis": 3072})
    files[f"{inner}/readme.html"] = b"<html></html>"
    (folder / "cifar-10-python.tar.gz").write_bytes(tar_gz(files, folders=(inner,)))
    return content


def deepul(folder: Path) -> Content:
    content = {}
    with zipfile.ZipFile(folder / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/", b"")
        archive.writestr("__MACOSX/data/._cifar10.pkl", b"\0\5\x16\7")
        for name, side, channels in (("cifar10", 32, 3), ("svhn", 32, 3), ("mnist", 28, 1)):
            parts = {
                split: Part(images(n, side, channels, n), classes(n, 10, n))
                for split, n in (("train", 11), ("test", 5))
            }
            values = {split: part.images for split, part in parts.items()}
            values |= {f"{split}_labels": part.labels for split, part in parts.items()}
            archive.writestr(f"data/{name}.pkl", pickle.dumps(values, protocol=4))
            content |= {f"{name} {split}": part for split, part in parts.items()}
    return content


# --- arrays in zips: the newer ImageNet, sprites; and FFHQ's array ----------------------------------------------------


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def imagenet(folder: Path, side: int) -> Content:
    """Ten batches to train, in one zip at 32 pixels and in two at 64; labels count from 1."""
    batches = {f"train_data_batch_{k}": Part(images(3, side, 3, k), classes(3, 1000, k)) for k in range(1, 11)}
    batches["val_data"] = Part(images(5, side, 3, 99), classes(5, 1000, 99))
    halves = ["train_part1"] * 5 + ["train_part2"] * 5 if side == 64 else ["train"] * 10
    zips: dict[str, dict[str, bytes]] = {}
    for (name, part), half in zip(batches.items(), [*halves, "val"], strict=True):
        inner = f"Imagenet{side}_{half}_npz"
        more = {} if half == "val" else {"mean": part.images.mean(axis=0).reshape(-1)}
        files = zips.setdefault(inner, {f"{inner}/.DS_Store": b"x", f"__MACOSX/{inner}/._{name}.npz": b"x"})
        files[f"{inner}/{name}.npz"] = npz(data=planar(part.images), labels=part.labels + 1, **more)
    for inner, files in zips.items():
        with zipfile.ZipFile(folder / f"{inner}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in reversed(files):  # batch 10 before batch 2 would be wrong, too
                archive.writestr(name, files[name])
    train = [batches[f"train_data_batch_{k}"] for k in range(1, 11)]
    together = Part(np.concatenate([p.images for p in train]), np.concatenate([p.labels for p in train]))
    return {"train": together, "val": batches["val_data"]}


def sprites(folder: Path, name: str, channels: int) -> Content:
    """addtt's files, whose labels are a pickled dict."""
    bits = images(20, 64, channels, channels, high=2)
    labels = np.array({"n_obj": [0] * 20}, dtype=object)
    (folder / name).write_bytes(npz(x=bits * np.uint8(255), labels=labels))
    return {"x": Part(bits)}


def ffhq_array(folder: Path) -> Content:
    part = Part(np.repeat(np.repeat(images(15, 32, 3, 0), 8, axis=1), 8, axis=2))
    np.save(folder / "ffhq-256.npy", part.images)
    return {"all": part}
