"""Which folders are splits: the names that people give them, and what to ask where it is not clear."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from data_scripts.kinds import CONTAINER_ENDINGS
from lvae_torch.errors import CfgError

Choice = Literal["auto", "folders", "random"]
SPLITS = ("train", "valid", "test")
WORDS = {
    "train": "train|training|trn",
    "valid": "val|valid|validation|validate|validating|dev|devel|development",
    "test": "test|testing|tst|holdout|heldout",
    "eval": "eval|evaluation",  # the test set, unless there is another and nothing to validate on
}
_WORD = {split: re.compile(rf"x?({words})(sets?|data|images?|imgs?|split)?") for split, words in WORDS.items()}
_BEGINS = re.compile(
    r"[\W\d_]*(?:(?P<train>train|tr(?![a-z])|entren|entra[iî]n|apprent|trein|addestr|обуч|трен|训练|訓練|学習|훈련|학습)|"
    r"(?P<valid>vali?d?(?=[^u]|$)|va(?![a-z])|dev|convalid|валид|验证|驗證|検証|검증)|"
    r"(?P<test>test|te(?![a-z])|ts(?![a-z])|hold.?out|eval|prueb|prova|тест|测试|測試|テスト|테스트|시험))"
)
"""Beginnings that are asked about, also in other languages: such folders are taken for neither splits nor classes."""
USUAL = {
    *("set", "sets", "data", "dataset", "images", "image", "imgs", "img", "pictures", "pics", "photos", "split"),
    *("splits", "samples", "the", "my", "of", "part", "full", "small", "big", "large", "new", "old", "copy", "final"),
    *("clean", "cropped", "resized", "raw", "original", "aligned", "jpg", "jpeg", "png", "npy", "shard"),
}
"""What people put before or behind such a name without meaning anything else by it."""


@dataclass(frozen=True)
class Meaning:
    """What a folder's name may say."""

    split: str = ""
    """train, valid, test, eval, or "" for none or several of them."""
    rest: tuple[str, ...] = ()
    """Its other words, without those that mean nothing."""


@cache
def meaning(folder: str) -> Meaning:
    """Of a folder, archive or array by its name: trainA, Test_Images, val2017, celeba-holdout, train-00000-of-00002."""
    text = re.sub(r"(hold|held)[\s_-]?out", "holdout", CONTAINER_ENDINGS.sub("", folder), flags=re.IGNORECASE)
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_A-Za-z]+", text)]
    splits = {word: split for word in words for split, pattern in _WORD.items() if pattern.fullmatch(word)}
    if len(set(splits.values())) != 1:
        return Meaning()
    rest = tuple(w for w in words if w not in splits and w not in USUAL and len(w) > 1)
    return Meaning(next(iter(splits.values())), rest)


def split_of(name: str) -> str:
    """The split that a name with slashes certainly names; "" for none."""
    found = next((m for m in map(meaning, name.split("/")) if m.split and not m.rest), Meaning())
    return "test" if found.split == "eval" else found.split


@dataclass(frozen=True)
class FolderSplits:
    """Pictures by the folders called like splits that they lie in."""

    names: Mapping[str, list[str]]
    """By split."""
    folders: Mapping[str, list[str]]
    """What the folders of each split are called."""
    outside: list[str] = field(default_factory=list)
    """Pictures in no such folder."""


def in_folders(names: Sequence[str]) -> FolderSplits | None:
    """Splits by the first folder called like one; None if there is none such."""
    where = {name: _first(name, sure=True) for name in names}
    unsure = {name: _first(name, sure=False) for name, part in where.items() if part is None}
    if _agree(part for part in unsure.values() if part is not None):
        where |= unsure
    parts = {part for part in where.values() if part is not None}
    if not parts:
        return None
    kinds = {meaning(part).split for part in parts}
    evaluation = "valid" if "test" in kinds and "valid" not in kinds else "test"
    split = {part: evaluation if meaning(part).split == "eval" else meaning(part).split for part in parts}
    found = {s: [name for name, part in where.items() if part is not None and split[part] == s] for s in SPLITS}
    return FolderSplits(
        {s: names for s, names in found.items() if names},
        {s: sorted(part for part in parts if split[part] == s) for s in SPLITS if s in split.values()},
        [name for name, part in where.items() if part is None],
    )


def _first(name: str, sure: bool) -> str | None:
    """The first folder on the way to ``name`` that means a split; for certain, or with other words in its name."""
    for part in name.split("/")[:-1]:
        found = meaning(part)
        if found.split and bool(found.rest) != sure:
            return part
    return None


def _agree(parts: object) -> bool:
    """Whether names with other words beside the split's go together: celeba_train, celeba_test; not bullet_train."""
    rests = dict[str, set[tuple[str, ...]]]()
    for part in set(parts):  # type: ignore[call-overload]
        rests.setdefault(meaning(part).split, set()).add(meaning(part).rest)
    train = rests.get("train", set())
    return len(rests) > 1 and all(rest <= train for rest in rests.values())


def _unclear(names: Sequence[str]) -> list[str]:
    """Folders, or beginnings of the files' names, that look like several splits.

    Where only some look so, they must be such words alone: train_1.png and test_1.png beside others, not "valley".
    """
    parts = {_first(name, sure=False) for name in names}
    told = sorted(part for part in parts if part is not None)
    if None not in parts and len({meaning(part).split for part in told}) > 1:
        return told
    for depth in range(min((name.count("/") for name in names), default=0) + 1):
        found = {name.split("/")[depth] if depth < name.count("/") else _head(name) for name in names}
        kinds = {part: _begins(part) for part in found}
        if "" not in kinds.values() and _are_several(kinds.values()):
            return sorted(found)[:10]
    heads = {head: split_of(head) for head in map(_head, names)}
    return sorted(head for head, split in heads.items() if split) if _are_several(heads.values()) else []


def _are_several(splits: Iterable[str]) -> bool:
    """Whether these are train and another; "" is none."""
    found = set(splits) - {""}
    return "train" in found and len(found) > 1


def _head(name: str) -> str:
    """What a file's name begins with: train of train_0001.png."""
    return re.split(r"[\W\d_]", name.rpartition("/")[2], maxsplit=1)[0]


def _begins(part: str) -> str:
    """The split that a name begins with, whatever comes behind: traincrop, Trainingsdaten, tr; "" for none."""
    match = _BEGINS.match(part.lower())
    return (match.lastgroup or "") if match else ""


def choose(names: Sequence[str], choice: Choice, where: object) -> FolderSplits | None:
    """The splits by folder; None where pictures are to be split at random.

    Raises:
        CfgError: if it is not clear which of these is wanted, naming both and what was found.
    """
    found = None if choice == "random" else in_folders(names)
    if found is None and choice == "folders":
        raise CfgError(f"{where}: --splits folders, but no folder is called train, valid or test.")
    if found is None and choice == "auto" and (unclear := _unclear(names)):
        raise CfgError(
            f"{where}: {', '.join(unclear)} may be splits. If they are, put them into folders train, valid and test; "
            "if not, give --splits random, which mixes all and holds some out."
        )
    if found is None or ("train" in found.names and (choice == "folders" or not found.outside)):
        return found
    counts = "; ".join(f"{s}: {len(found.names[s]):,} in {', '.join(f)}" for s, f in found.folders.items())
    if "train" not in found.names:
        trouble = "none is there to train on"
        remedy = "Name one train; or give --splits random, which mixes all"
    else:
        trouble = f"{len(found.outside):,} pictures lie in no such folder, the first {found.outside[0]}"
        remedy = "Choose: --splits folders leaves those out; --splits random mixes all and holds some out"
    raise CfgError(f"{where}: some folders are called like splits ({counts}), but {trouble}. {remedy}.")
