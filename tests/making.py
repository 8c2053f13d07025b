"""What the tests of ``data_scripts`` share: small mirrors, decoding without processes, and looking at dumps."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upstream import Content, Part

from data_scripts import binarized_mnist
from data_scripts.upstream import Source, check
from lvae_torch.data.dump import Dump


class AtOnce:
    """Stands in for a pool of processes, whose start takes a second each."""

    def __init__(self, jobs: int, mp_context: object, initializer: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, cancel_futures: bool) -> None:
        pass


def contents(dumps: Path, name: str) -> Content:
    """All that is in a dump, in order, after a check of every byte."""
    dump = Dump.open(dumps, name)
    dump.verify()
    return {
        split: Part(dump.split(split).gather(np.arange(count)).numpy(), dump.labels(split), dump.names(split))
        for split, count in dump.counts.items()
    }


def assert_equal(found: Content, wanted: Content) -> None:
    assert list(found) == list(wanted)
    for split, part in wanted.items():
        assert np.array_equal(found[split].images, part.images), split
        assert found[split].names == part.names, split
        if part.labels is None:
            assert found[split].labels is None, split
        else:
            assert found[split].labels.tolist() == part.labels.tolist(), split


def bytes_of(dumps: Path, name: str) -> dict[str, bytes]:
    """Every file of a dump."""
    return {path.name: path.read_bytes() for path in sorted((dumps / name).iterdir())}


def accept_small_binarized_mnist(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Editions other than upstream's are refused there, so the small files must be upstream's."""
    known = {}
    for split in binarized_mnist.FILES:
        path = folder / f"binarized_mnist_{split}.amat"
        known[split] = path.stat().st_size, check(path, Source(path.name)).sha256
    monkeypatch.setattr(binarized_mnist, "FILES", known)
