"""Every dump that ``data_scripts`` makes: the small upstream files for it, and what must come out, worked out here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import upstream
import upstream_pictures as pictures
from PIL import Image
from upstream import Content, Part


@dataclass(frozen=True)
class Case:
    """How to lay out the source files, and what the dump made of their content must hold."""

    lay_out: Callable[[Path], Content]
    wanted: Callable[[Content], Content]
    options: dict[str, Any] = field(default_factory=dict)


def shuffled(n: int, seed: int) -> np.ndarray:
    """As scikit-learn's ``shuffle`` and ``ShuffleSplit`` do it: numbers, shuffled in place by the old generator."""
    numbers = np.arange(n)
    np.random.RandomState(seed).shuffle(numbers)
    return numbers


def renamed(**splits: str) -> Callable[[Content], Content]:
    return lambda content: {split: content[part] for split, part in splits.items()}


def changed(images: Callable[[np.ndarray], np.ndarray], wanted: Callable[[Content], Content]) -> Any:
    return lambda content: {s: Part(images(p.images), p.labels, p.names) for s, p in wanted(content).items()}


def pad32(images: np.ndarray) -> np.ndarray:
    out = np.zeros((len(images), 32, 32, 1), dtype=np.uint8)
    out[:, 2:30, 2:30] = images
    return out


def resized(side: int, how: Image.Resampling) -> Callable[[np.ndarray], np.ndarray]:
    def resize(images: np.ndarray) -> np.ndarray:
        small = [np.asarray(Image.fromarray(im.squeeze()).resize((side, side), how)) for im in images]
        return np.stack(small).reshape(len(images), side, side, images.shape[3])

    return resize


def halved(content: Content, test: str) -> Content:
    """Efficient-VDVAE's test sets."""
    order = shuffled(len(content[test].images), 101)
    half = len(order) // 2
    return {"valid": content[test][order[:half]], "test": content[test][order[half:]]}


# --- one function for each dataset that needs more than other names --------------------------------------------------


def mnist_efficient_vdvae(content: Content) -> Content:
    return {"train": content["train"], **halved(content, "t10k")}


def omniglot_valid(content: Content) -> Content:
    """IWAE: the last 1,345 of a permutation."""
    order = np.random.RandomState(seed=123).permutation(1400)
    return {"train": content["data"][order[:-1345]], "valid": content["data"][order[-1345:]], "test": content["test"]}


def cifar10(content: Content) -> Content:
    batches = [content[f"data_batch_{k}"] for k in range(1, 6)]
    train = Part(np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches]))
    return {"train": train, "test": content["test_batch"]}


def cifar10_efficient_vdvae(content: Content) -> Content:
    return {"train": cifar10(content)["train"], **halved(content, "test_batch")}


def cifar10_vdvae(content: Content) -> Content:
    """scikit-learn's ``train_test_split``: the first of the permutation are held out."""
    train, order = cifar10(content)["train"], shuffled(100, 11172018)
    return {"train": train[order[10:]], "valid": train[order[:10]], "test": content["test_batch"]}


def cropped(top: int, jpeg: bool = False) -> Callable[[Content], Content]:
    def crop(images: np.ndarray) -> np.ndarray:
        faces = images[:, top : top + 148, 15:163]
        if jpeg:
            faces = np.stack([pictures.decoded(pictures.encoded(face, "JPEG", quality=75)) for face in faces])
        return resized(64, Image.Resampling.BILINEAR)(faces)

    return changed(crop, lambda content: content)


def one_in_ten_held_out(content: Content) -> Content:
    order, (part,) = np.random.RandomState(0).permutation(5), content.values()
    return {"train": part[np.sort(order[1:])], "valid": part[np.sort(order[:1])]}


def ffhq256_vdvae(content: Content) -> Content:
    """The program's ``np.random.seed(5)``, and the last tenth of a permutation."""
    order = shuffled(15, 5)
    return {"train": content["all"][order[:-1]], "valid": content["all"][order[-1:]]}


def oord_vdvae(content: Content) -> Content:
    order, train = shuffled(21, 42), content["train"]
    return {"train": train[order[:-2]], "valid": train[order[-2:]], "test": content["valid"]}


def toy2d(which: str) -> Callable[[Content], Content]:
    """Points one by one: scaled noise, turned by 45 degrees, moved."""

    def points(n: int, seed: int) -> np.ndarray:
        (x, y), noise = {"1": (5, 1), "2": (1, 5)}[which[0]], np.random.RandomState(seed).randn(n, 2)
        turn = np.pi / 4 if which[1] == "a" else 0
        along, across = noise[:, 0] * x, noise[:, 1] * y
        first, second = np.cos(turn) * along - np.sin(turn) * across, np.sin(turn) * along + np.cos(turn) * across
        mean = {"1": (1, 2), "2": (-1, 2)}[which[0]]
        return np.stack([first + mean[0], second + mean[1]], axis=1).astype(np.float32)[:, None, None, :]

    return lambda _: {"train": Part(points(10_000, 0)), "test": Part(points(2500, 0)), "heldout": Part(points(2500, 1))}


def nothing(_: Any) -> Content:
    """Drawn at random: ``test_multi_object`` and ``test_making`` look at what."""
    return {}


PLAIN_MNIST = renamed(train="train", test="t10k")
PLAIN_OMNIGLOT = renamed(train="data", test="test")
NORB = renamed(train="training", test="testing")
OORD = renamed(train="train", test="valid")
NEW_IMAGENET = renamed(train="train", test="val")
FULL_256 = changed(resized(256, Image.Resampling.BILINEAR), one_in_ten_held_out)
FEW = {"count": 30}


def published(content: Content) -> Content:
    return {"train": content["x"][:18], "test": content["x"][18:]}


CASES: dict[str, Case] = {
    "binarized_mnist": Case(
        upstream.binarized_mnist, lambda c: {"train": c["train"] + c["valid"], "test": c["test"]}
    ),
    "binarized_mnist_valid": Case(upstream.binarized_mnist, lambda c: c),
    "mnist": Case(upstream.mnist, PLAIN_MNIST),
    "mnist_pad32": Case(upstream.mnist, changed(pad32, PLAIN_MNIST)),
    "mnist_efficient_vdvae": Case(upstream.mnist, changed(pad32, mnist_efficient_vdvae)),
    "fashion_mnist": Case(upstream.fashion_mnist, PLAIN_MNIST),
    "omniglot": Case(upstream.omniglot, PLAIN_OMNIGLOT),
    "omniglot_pad32": Case(upstream.omniglot, changed(pad32, PLAIN_OMNIGLOT)),
    "omniglot_valid": Case(upstream.omniglot, omniglot_valid),
    "omniglot_full": Case(pictures.omniglot_full, renamed(train="background", test="evaluation")),
    "omniglot_full_small": Case(
        pictures.omniglot_full, renamed(train="background_small1", test="background_small2")
    ),
    "small_norb": Case(upstream.small_norb, NORB),
    "small_norb32": Case(upstream.small_norb, changed(resized(32, Image.Resampling.BICUBIC), NORB)),
    "svhn": Case(upstream.svhn, renamed(train="train", test="test")),
    "svhn_extra": Case(upstream.svhn, renamed(train="train", test="test", extra="extra")),
    "cifar10": Case(upstream.cifar10, cifar10),
    "cifar10_efficient_vdvae": Case(upstream.cifar10, cifar10_efficient_vdvae),
    "cifar10_vdvae": Case(upstream.cifar10, cifar10_vdvae),
    "celeba64_addtt": Case(pictures.celeba, cropped(35)),
    "celeba64_nvae": Case(pictures.celeba, cropped(40)),
    "celeba64_efficient_vdvae": Case(pictures.celeba, cropped(40, jpeg=True)),
    "celebahq256": Case(pictures.celebahq, FULL_256),
    "celebahq1024": Case(pictures.celebahq, one_in_ten_held_out),
    "ffhq256": Case(pictures.ffhq, FULL_256),
    "ffhq256_vdvae": Case(upstream.ffhq_array, ffhq256_vdvae),
    "ffhq1024": Case(partial(pictures.ffhq, nested=True), one_in_ten_held_out),
    "ffhq1024_vdvae": Case(pictures.ffhq, lambda c: {"train": c["all"][:4], "valid": c["all"][4:]}),
    "multi_dsprites": Case(nothing, nothing, FEW),
    "multi_dsprites_1": Case(nothing, nothing, FEW),
    "quickstart_sprites": Case(nothing, nothing, FEW),
    "multi_dsprites_published": Case(
        partial(upstream.sprites, name="multi_dsprites_color_012.npz", channels=3), published
    ),
    "multi_mnist": Case(upstream.mnist, nothing, FEW),
    "multi_mnist_1": Case(upstream.mnist, nothing, FEW),
    "multi_mnist_published": Case(
        partial(upstream.sprites, name="multi_binary_mnist_012.npz", channels=1), published
    ),
    **{f"imagenet{side}": Case(partial(upstream.imagenet, side=side), NEW_IMAGENET) for side in (32, 64)},
    **{f"imagenet{side}_oord": Case(partial(pictures.imagenet_oord, side=side), OORD) for side in (32, 64)},
    **{f"imagenet{side}_oord_vdvae": Case(partial(pictures.imagenet_oord, side=side), oord_vdvae) for side in (32, 64)},
    **{f"toy2d_{which}": Case(nothing, toy2d(which)) for which in ("1a", "1b", "2a", "2b")},
    **{
        f"deepul_{which}": Case(upstream.deepul, renamed(train=f"{which} train", test=f"{which} test"))
        for which in ("cifar10", "svhn", "mnist")
    },
}  # fmt: skip
"""By the dump's name."""

ALIASES = {"celeba64": "celeba64_addtt", "toy2d": "toy2d_1a", "deepul": "deepul_cifar10"}
"""Recipes whose dump has another name than they."""
