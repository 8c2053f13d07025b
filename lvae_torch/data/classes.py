"""The classes of a dump as a class-conditional model needs them: one label an image, counted from 0."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np

from lvae_torch.data.dump import NO_CLASS, Dump, ImageSplit
from lvae_torch.errors import DataError

REMEDY = "Make the dump again with a class for each image (lvae data images --labels FILE --label-column NAME)"

MOST_TOLD = 20


@dataclass(frozen=True)
class ClassNames:
    """Of the training images: names, and a hash that tells them from other labels of the same images."""

    names: tuple[str, ...] = ()
    """Of the classes 0, 1, ...: what the dump calls them, else their numbers; empty for an unconditional model."""
    labels_hash: str = ""

    @classmethod
    def of(cls, dump: Dump, split: str) -> "ClassNames":
        """Those of the training split.

        Raises:
            DataError: if the dump has no labels, several an image, or values that are no classes.
        """
        labels = _one_each(dump, split)
        named = dump.label_names
        count = max(len(named), int(labels.max()) + 1)
        if count > max(len(labels), len(named)):
            raise DataError(
                f"{dump.folder}: labels up to {labels.max():,} of {len(labels):,} images are no classes. {REMEDY}."
            )
        names = (*named, *map(str, range(len(named), count)))
        _check_range(dump, split, labels, len(named) or count)
        return cls(names, _hash_of([shard.labels_sha256 for shard in dump.shards[split]]))


NO_CLASSES = ClassNames()


def labels_identity(dump: Dump, split: str) -> str:
    """A short hash of the labels of a split and of what its classes are called."""
    return _hash_of([*(shard.labels_sha256 for shard in dump.shards[split]), *dump.label_names])[:12]


def _hash_of(texts: Sequence[str]) -> str:
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def with_labels(split: ImageSplit, dump: Dump, classes: Sequence[str], at: Sequence[int] | None = None) -> ImageSplit:
    """The split with the class of each image; unchanged where there are no ``classes``.

    Where both the dump and the model have names for the classes, and other ones, a class is the one of its name.

    Args:
        classes: names of the model's.
        at: the images whose classes are asked for; all if it is None.
    Raises:
        DataError: if one of these images has no class, or one that is not among them.
    """
    if not classes:
        return split
    labels, are_others = _one_each(dump, split.name), _are_others(dump.label_names, classes)
    _check_range(dump, split.name, labels, len(dump.label_names if are_others else classes), at)
    return replace(split, labels=_by_name(dump, split.name, labels, classes, at) if are_others else labels)


def _are_others(named: Sequence[str], classes: Sequence[str]) -> bool:
    """Whether the dump's names are not the model's, and neither are mere numbers."""
    mere = [list(map(str, range(len(names)))) for names in (named, classes)]
    return list(named) not in (mere[0], list(classes[: len(named)])) and list(classes) != mere[1]


def _by_name(
    dump: Dump, split: str, labels: np.ndarray, classes: Sequence[str], at: Sequence[int] | None
) -> np.ndarray:
    """The model's number for each of ``labels``, which are numbers of the dump's names.

    Raises:
        DataError: if the model has no class of such a name, or several.
    """
    named = dump.label_names
    ours, theirs, places = Counter(classes), Counter(named), {name: k for k, name in enumerate(classes)}
    numbers = np.array([places[name] if ours[name] == theirs[name] == 1 else -1 for name in named])
    found: np.ndarray = numbers[labels.clip(0, len(named) - 1)]
    unknown = _images(found < 0, at)
    if len(unknown):
        first = int(unknown[0])
        raise DataError(
            f"{dump.folder}: image {first} of {split} is of class {named[labels[first]]!r}, and the model is one of "
            f"{_first(classes)}, each once; the dump's are {_first(named)} ({len(unknown):,} images like that). "
            "Name the classes of both alike, or choose another split or dump."
        )
    return found


def class_numbers(wanted: Iterable[object], names: Sequence[str]) -> list[int]:
    """The numbers of classes, each given by its number or by its name.

    Raises:
        ValueError: if there is no such class.
    """
    numbers = [names.index(one) if one in names else int(one) if isinstance(one, Integral) else one for one in wanted]
    if unknown := [one for one in numbers if not (isinstance(one, int) and 0 <= one < len(names))]:
        raise ValueError(f"no class {unknown[0]!r}; there are {len(names)}, counted from 0: {_first(names)}")
    return [one for one in numbers if isinstance(one, int)]


def rows_of(classes: Sequence[int], places: Sequence[int], columns: int) -> list[int]:
    """The class at each place of a grid: a row of ``columns`` for each of the ``classes`` in turn."""
    return [classes[place // columns % len(classes)] for place in places]


def labels_told(dump: Dump, split: str) -> str:
    """How many images each class has, or how many of each attribute are positive; "" without labels."""
    labels, names = dump.labels(split), dump.label_names
    if labels is None:
        return ""
    if labels.ndim == 2:
        counts = (labels > 0).sum(axis=0)
        told = [f"{name} {count:,}" for name, count in zip(names or range(labels.shape[1]), counts, strict=True)]
        return f"{labels.shape[1]} attributes; above 0 in: {_first(told)}"
    classes, counts = np.unique(labels, return_counts=True)
    told = [f"{class_told(c, names)} {n:,}" for c, n in zip(classes.tolist(), counts, strict=True)]
    return f"{int((classes != NO_CLASS).sum())} classes: {_first(told)}"


def class_told(number: int, names: Sequence[str]) -> str:
    """A class by its name, or by its number where it has none."""
    return "no class" if number == NO_CLASS else names[number] if 0 <= number < len(names) else str(number)


def _first(told: Sequence[str]) -> str:
    return ", ".join(told[:MOST_TOLD]) + (", ..." if len(told) > MOST_TOLD else "")


def _one_each(dump: Dump, split: str) -> np.ndarray:
    labels = dump.labels(split)
    if labels is None:
        raise DataError(f"{dump.folder}: the images of {split} have no labels. {REMEDY}.")
    if labels.ndim != 1:
        named = f" ({', '.join(dump.label_names[:3])}, ...)" if dump.label_names else ""
        raise DataError(
            f"{dump.folder}: the images of {split} have {labels.shape[1]} labels each{named}; a model can be "
            f"conditional on one. {REMEDY}, and name one column."
        )
    return labels


def _check_range(dump: Dump, split: str, labels: np.ndarray, n_classes: int, at: Sequence[int] | None = None) -> None:
    outside = _images((labels < 0) | (labels >= n_classes), at)
    if len(outside):
        first = int(outside[0])
        raise DataError(
            f"{dump.folder}: image {first} of {split} has label {labels[first]}, and there are {n_classes} classes, "
            f"counted from 0 ({len(outside):,} images like that). {REMEDY}, or choose another split."
        )


def _images(chosen: np.ndarray, at: Sequence[int] | None) -> np.ndarray:
    """Numbers of those of the images ``at``, or of all, that are ``chosen``, bool (n,)."""
    found = np.flatnonzero(chosen)
    return found if at is None else np.intersect1d(found, at)
