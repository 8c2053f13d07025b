"""Your own pictures, from a folder, an archive, arrays, a table or an address, to a dump that accounts for them all."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from data_scripts.account import Account
from data_scripts.held_out import add_held_out_options, groups_of, random_split
from data_scripts.kinds import by_number
from data_scripts.labels import Labels, from_folders, from_source, from_table
from data_scripts.pictures import PictureDump, add_picture_options, listed
from data_scripts.recipe import UNPACKED, Recipe, Request
from data_scripts.render import Frame, Render, Resample
from data_scripts.sources import Pictures, Place, gather
from data_scripts.sources.arrays import AXES
from data_scripts.sources.frames import by_frame
from data_scripts.sources.walk import UNREADABLE
from data_scripts.splits import Choice, choose
from data_scripts.viewing import MAX_PIXELS, MOST_PIXELS, View
from lvae_torch.data.dump import NO_CLASS, Layout
from lvae_torch.data.shards import Encoding
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import place_of

LARGE = 512  # from this height on, images are kept as PNG unless asked otherwise
MOST_SIDE = 8192
OUTSIDE = "in no folder that is called like a split"


def write(request: Request) -> str:
    """All pictures in one size; folders called train, valid or test are splits, otherwise some are held out."""
    options, account = request.options, Account()
    if not request.source:
        raise CfgError("images: say where your pictures are: --source FOLDER_or_ARCHIVE.")
    if not options["name"]:
        raise CfgError("images: give the dump a name: --name NAME.")
    (height, width), view = _size(options["size"]), _view(options)
    if options["skip_damaged"] < 0 or options["jobs"] < 0:
        raise CfgError(f"--skip-damaged is {options['skip_damaged']} and --jobs is {options['jobs']}; use 0 or more.")
    path = request.fetch_address(request.source)
    found = gather(path, Place(request.raw / UNPACKED, request.dumps, account, options["key"], options["axes"]))
    pictures = by_frame(found, view, account)
    if account.left_out.get(UNREADABLE) and not options["skip_unreadable"]:
        lost = account.left_out[UNREADABLE]
        raise DataError(
            f"{path}: {len(lost):,} may not be read, the first {lost[0]}. Change that, or --skip-unreadable."
        )
    splits = _splits(pictures, options, account, path)
    every = [name for names in splits.values() for name in names]
    labels = _by_split(_labels(pictures, every, options, account), splits, account)
    channels = 1 if options["grey"] else 3
    encoding: Encoding = "png" if height >= LARGE else "raw"
    if options["encoding"] != "auto":
        encoding = options["encoding"]
    dump = PictureDump(
        request,
        options["name"],
        Layout((channels, height, width), 256, encoding=encoding),
        _provenance(request, path, account, labels),
        Render((height, width), channels, options["crop"], resample=options["resample"], view=view),
        account,
        labels,
    )
    return dump.write({split: (pictures, names) for split, names in splits.items()})


def _provenance(request: Request, path: Path, account: Account, labels: Labels) -> dict[str, Any]:
    said: dict[str, Any] = {
        "source": path.absolute().name,
        "splits": account.splits["rule"],
        "split_rule": account.splits,
    }
    if labels.of:
        said |= {"labels": labels.source, "label_names": list(map(str, labels.names))}
    return said


def _splits(
    pictures: Pictures, options: Mapping[str, Any], account: Account, path: Path
) -> Mapping[str, Sequence[str]]:
    """Names of each split, in the order of their numbers; how they came about goes into the account."""
    names = sorted(pictures.names, key=by_number)
    valid, seed, by = options["valid"], options["seed"], options["group_by"]
    choice: Choice = options["splits"]
    found = choose(names, choice, path)
    if found is None:
        account.splits |= {"rule": _random_rule(valid, seed)}
        return random_split(names, valid, seed, _groups(names, pictures, by, account))
    account.splits |= {"rule": "folders", "folders": dict(found.folders)}
    for name in found.outside:
        account.drop(name, OUTSIDE)
    splits = dict(found.names)
    if valid is not None:
        if "valid" in splits:
            raise CfgError(
                f"{path}: --valid is {valid}, but {', '.join(found.folders['valid'])} holds {len(splits['valid']):,} "
                "pictures to validate on. Leave --valid out, or give --splits random, which mixes all."
            )
        account.splits |= {"valid": f"of train, {_random_rule(valid, seed)}"}
        parts = random_split(splits["train"], valid, seed, _groups(splits["train"], pictures, by, account))
        splits = {**parts, **{split: part for split, part in splits.items() if split != "train"}}
    elif by:
        _tell_of_crossing_groups(splits, by, account)
    return splits


def _random_rule(valid: Any, seed: int) -> str:
    return f"random, seed {seed}" if valid is None else f"random, {valid} valid, seed {seed}"


def _groups(names: Sequence[str], pictures: Pictures, by: str, account: Account) -> list[str] | None:
    """What must stay together: as asked, and in any case the frames of one picture."""
    if by:
        account.splits["grouped_by"] = by
        return groups_of(names, by)
    are_frames = [isinstance(pictures.span(name), Frame) for name in names]
    groups = [name.rpartition("#")[0] if is_frame else name for name, is_frame in zip(names, are_frames, strict=True)]
    return groups if any(are_frames) else None


def _tell_of_crossing_groups(splits: Mapping[str, Sequence[str]], by: str, account: Account) -> None:
    account.splits["grouped_by"] = by
    seen = dict[str, str]()
    for split, names in splits.items():
        for name, group in zip(names, groups_of(names, by), strict=True):
            if seen.setdefault(group, split) != split:
                account.note(name, f"of a group that is in {seen[group]}, too")


def _labels(pictures: Pictures, names: Sequence[str], options: Mapping[str, Any], account: Account) -> Labels:
    """As asked: from a table, from the source or the folders, or none."""
    asked = options["labels"]
    if asked == "none":
        return Labels()
    if asked != "folders":
        path = place_of(asked, "--labels")
        if not path.is_file():
            raise DataError(f"{path}: no such file. Give --labels FILE, folders or none.")
        return from_table(path, options["file_column"], options["label_column"] or (), names, account)
    if pictures.labels:
        return from_source(pictures)
    folders: Mapping[str, Sequence[str]] = account.splits.get("folders", {})
    return from_folders(pictures, names, {folder for called in folders.values() for folder in called})


def _by_split(labels: Labels, splits: Mapping[str, Sequence[str]], account: Account) -> Labels:
    """By the names that the dump will have: all of a split, those without a class as ``NO_CLASS``, or none."""
    kept = dict[str, int | tuple[int, ...]]()
    for names in splits.values():
        if labels.of.keys().isdisjoint(names):
            continue
        for name in names:
            if name not in labels.of:
                account.note(name, f"without a class: label {NO_CLASS}")
            kept[listed(name)] = labels.of.get(name, NO_CLASS)
    return Labels(kept, labels.names, labels.source)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < height <= MOST_SIDE or not 0 < width <= MOST_SIDE:
        raise CfgError(
            f"--size is {text!r}; use a number such as 64, or HEIGHTxWIDTH such as 64x96, of at most {MOST_SIDE:,}."
        )
    return height, width


def _view(options: Mapping[str, Any]) -> View:
    if not 0 < (most := options["max_pixels"]) <= MOST_PIXELS:
        raise CfgError(f"--max-pixels is {most}; use 1 to {MOST_PIXELS:,}.")
    return View(_colour(options["background"]), _range(options["range"]), options["frames"] or "", most)


def _colour(text: str) -> tuple[int, int, int]:
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise CfgError(f"--background is {text!r}; use a colour such as white, black or #808080.") from error
    return red, green, blue


def _range(text: str) -> tuple[float, float] | None:
    if text == "full":
        return None
    low, _, high = text.partition(":")
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = 0.0, 0.0
    if not ends[0] < ends[1] < float("inf") or ends[0] == float("-inf"):
        raise CfgError(f"--range is {text!r}; use full, or LOW:HIGH such as 0:4095.")
    return ends


def add_options(parser: argparse.ArgumentParser) -> None:
    add_picture_options(parser)
    add_held_out_options(parser)
    add = parser.add_argument
    add("--splits", choices=get_args(Choice), default="auto", help="folders called train, valid, test, or at random")
    add("--group-by", default="", metavar="folder|REGEX", help="hold out whole groups: folders, or by what is in names")
    add("--labels", default="folders", metavar="folders|none|FILE", help="classes: by folder, or a CSV or TSV of names")
    add("--file-column", default="", metavar="NAME", help="of --labels FILE: the column of file names")
    add(
        "--label-column", action="append", metavar="NAME", help="of --labels FILE: the label; several times for several"
    )
    add(
        "--size", default="64", metavar="H[xW]", help=f"height and width of every image (default 64, up to {MOST_SIDE})"
    )
    add("--crop", choices=("centre", "none"), default="centre", help="keep proportions and cut (default), or squash")
    add("--resample", choices=get_args(Resample), default="bilinear", help="Pillow's filter")
    add("--grey", action="store_true", help="one channel instead of three")
    add("--background", default="white", metavar="COLOUR", help="what transparent pixels lie on (default white)")
    add(
        "--range",
        default="full",
        metavar="full|LOW:HIGH",
        help="values of 16-bit and float pixels that are black, white",
    )
    add("--frames", choices=("first", "all"), help="of pictures that have several: one of each, or all")
    add("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help=f"of a picture (default {MAX_PIXELS:,})")
    add("--key", default="", metavar="NAME", help="which array or column holds the pictures, where there are several")
    add("--axes", choices=("", *AXES), default="", help="how the axes of an array are called, where it is not clear")
    add("--skip-unreadable", action="store_true", help="leave out files and folders that may not be read")
    add(
        "--encoding", choices=("auto", "raw", "png"), default="auto", help=f"auto: png from {LARGE} pixels on, else raw"
    )


RECIPE = Recipe(
    name="images",
    images="your own",
    pixels="of any size",
    download="none",
    dump="H x W x 3 bytes an image",
    licence="yours",
    write=write,
    add_own_options=add_options,
    access="--source",
)
