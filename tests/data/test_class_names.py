"""The classes of a dump, as a model of other names or of another order knows them."""

from pathlib import Path

import numpy as np
import pytest
import small

from lvae_torch.data.classes import ClassNames, with_labels
from lvae_torch.data.dump import Dump, Layout
from lvae_torch.data.writing import DumpWriter
from lvae_torch.errors import DataError

LABELS = [0, 1, 1, 2, 0, 2]


def dump(folder: Path, *names: str) -> Dump:
    """Images with ``LABELS``, and names for them."""
    said = {"label_names": list(names)} if names else {}
    with DumpWriter(folder, "pets", Layout(small.IMAGE_SHAPE, 2), {"source": "made by a test", **said}) as writer:
        writer.add("test", np.zeros((len(LABELS), 8, 8, 1), dtype=np.uint8), np.array(LABELS))
    return Dump.open(folder, "pets")


def told(given: Dump, *classes: str, at: list[int] | None = None) -> list[int]:
    labels = with_labels(given.split("test"), given, classes, at).labels
    assert labels is not None
    return list(labels.tolist())


def test_classes_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    given = dump(tmp_path, "cat", "dog", "bird")
    assert told(given, "bird", "cat", "dog") == [1, 2, 2, 0, 1, 0]
    assert told(given, "horse", "bird", "dog", "cat") == [3, 2, 2, 1, 3, 1]
    assert told(given, "cat", "dog", "bird") == LABELS


def test_names_that_say_nothing_are_matched_by_number(tmp_path: Path) -> None:
    assert told(dump(tmp_path / "bare"), "dog", "cat", "bird") == LABELS
    assert told(dump(tmp_path / "numbers", "0", "1", "2"), "dog", "cat", "bird") == LABELS
    assert told(dump(tmp_path / "named", "cat", "dog", "bird"), "0", "1", "2") == LABELS
    fewer = dump(tmp_path / "fewer", "cat", "dog")
    assert told(fewer, *ClassNames(("cat", "dog", "2")).names) == LABELS, "what a run of this dump calls them"


def test_a_class_that_the_model_does_not_know_is_refused_with_both_lists(tmp_path: Path) -> None:
    given = dump(tmp_path, "cat", "dog", "bird")
    with pytest.raises(DataError, match=r"pets: image 3 of test is of class 'bird'.* cat, horse, dog.*dump.* cat, d"):
        told(given, "cat", "horse", "dog")
    assert [told(given, "cat", "horse", "dog", at=[0, 1])[k] for k in (0, 1)] == [0, 2], "the others are not asked for"


def test_a_name_twice_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image 0 of test is of class 'cat'"):
        told(dump(tmp_path, "cat", "dog", "bird"), "dog", "bird", "cat", "cat")


def test_labels_beyond_the_names_of_the_dump_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image 3 of test has label 2, and there are 2 classes"):
        told(dump(tmp_path, "cat", "dog"), "dog", "cat", "bird")
