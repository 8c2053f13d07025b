"""CelebA at 64x64: two crops that are not comparable with each other, and one of them with Efficient-VDVAE's JPEGs."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_scripts.account import Account
from data_scripts.archives import Archive, open_archive, pictures_of
from data_scripts.labels import Labels, from_table, read_table
from data_scripts.pictures import PictureDump, add_picture_options
from data_scripts.recipe import Recipe, Request
from data_scripts.render import Render
from data_scripts.upstream import Source
from lvae_torch.data.dump import Layout
from lvae_torch.errors import DataError

ARCHIVE = Source(
    "img_align_celeba.zip", 1_443_490_838, md5="00d2c5bc6d35e252742224ab0c1e8fcb",
    origin="https://drive.google.com/file/d/0B7EVK8r0v71pZjFTYXZWM3FlRnM?resourcekey=0-dYn9z10tMJOBAkviAcfdyQ",
    unpacked="000001.jpg",
)  # fmt: skip
PARTITION = Source(
    "list_eval_partition.txt", 2_836_386, md5="d32c9cbf5e040fd4025c592c306e6668",
    origin="https://drive.google.com/file/d/0B7EVK8r0v71pY0NSMzRuSXJEVkk?resourcekey=0-i4TGCi_51OtQ5K9FSp4EDg",
    also=("list_eval_partition.csv",),
)  # fmt: skip
ATTRIBUTES = Source(
    "list_attr_celeba.txt", 26_721_026, md5="75e246fa4810816ffd6ee81facbd244c", also=("list_attr_celeba.csv",),
    origin="https://drive.google.com/file/d/0B7EVK8r0v71pblRyaVFSWGxPY0U",
)  # fmt: skip
SPLITS = ("train", "valid", "test")  # 0, 1, 2 in the partition file


@dataclass(frozen=True)
class Crop:
    """148x148 pixels of a picture of 178x218."""

    box: tuple[int, int, int, int]
    told: str
    jpeg: bool = False


CROPS = {
    "addtt": Crop((15, 35, 163, 183), "centre crop of 148, as addtt/ladder-vae-pytorch"),
    "nvae": Crop((15, 40, 163, 188), "crop of 148 five pixels lower, as NVAE"),
    "efficient_vdvae": Crop((15, 40, 163, 188), "NVAE's crop, passed through JPEG as Efficient-VDVAE does", jpeg=True),
}


def write(request: Request) -> str:
    """162,770 + 19,867 + 19,962 faces."""
    crop = CROPS[request.options["crop"]]
    pictures, partition = request.fetch_by_hand([ARCHIVE, PARTITION])
    with open_archive(pictures) as archive:
        splits = split_names(archive, partition)
        labels, told = _attributes(request, [name for names in splits.values() for name in names])
        dump = PictureDump(
            request,
            f"celeba64_{request.options['crop']}",
            Layout((3, 64, 64), 256),
            {
                "source": "CelebA, aligned and cropped",
                "variant": crop.told,
                "licence": "non-commercial research",
                **told,
            },
            Render((64, 64), box=crop.box, needs=(218, 178), jpeg_before_resize=crop.jpeg),
            labels=labels,
        )
        return dump.write({split: (archive, names) for split, names in splits.items()})


def _attributes(request: Request, names: Sequence[str]) -> tuple[Labels, dict[str, object]]:
    """The 40 attributes, -1 or 1, if their file lies beside the pictures; and what to say of them in the dump."""
    is_asked, given = request.options["attributes"], [place for place in (request.source, request.mirror) if place]
    if not is_asked and any("://" in place for place in given):
        return Labels(), {}  # nothing is downloaded that was not asked for
    try:
        path = request.fetch(ATTRIBUTES)
    except DataError:
        if is_asked:
            raise
        return Labels(), {}
    columns = [column for column in read_table(path)[0][1:] if column]
    labels = from_table(path, "", columns, names, Account())
    return labels, {"labels": "attributes, -1 or 1", "label_names": columns}


def split_names(archive: Archive, partition: Path) -> dict[str, list[str]]:
    """The pictures of each split, in the order of their numbers.

    Raises:
        DataError: if the partition file is of another form, or it and the archive do not name the same pictures.
    """
    splits = read_partition(partition)
    found = {name.rpartition("/")[2]: name for name in pictures_of(archive)}
    if missing := sorted(set(splits) - set(found)):
        raise DataError(
            f"{archive.path}: lacks {len(missing):,} of the {len(splits):,} pictures in {partition}, "
            f"the first {missing[0]}: cut off, or another file."
        )
    if unknown := sorted(set(found) - set(splits)):
        raise DataError(f"{partition}: has no line for {len(unknown):,} pictures, the first {unknown[0]}.")
    result: dict[str, list[str]] = {split: [] for split in SPLITS}
    for base, name in found.items():
        result[splits[base]].append(name)
    return {split: names for split, names in result.items() if names}


def read_partition(path: Path) -> dict[str, str]:
    """Split by name; lines are ``name number``, may end as on Windows, and in a .csv have commas and a head."""
    result, is_csv = dict[str, str](), path.suffix.lower() == ".csv"
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a text of file names ({error}).") from error
    for number, line in enumerate(lines, 1):
        match line.replace(",", " ").split() if is_csv else line.split():
            case ["image_id", "partition"] if number == 1 and is_csv:
                continue
            case [name, "0" | "1" | "2" as split]:
                if name in result:
                    raise DataError(f"{path}: line {number} names {name} twice.")
                result[name] = SPLITS[int(split)]
            case []:
                continue
            case _:
                raise DataError(f"{path}: line {number} is {line[:80]!r}, needs a file name and 0, 1 or 2.")
    return result


def add_options(parser: argparse.ArgumentParser) -> None:
    add_picture_options(parser)
    told = "; ".join(f"{name}: {crop.told}" for name, crop in CROPS.items())
    parser.add_argument(
        "--attributes", action="store_true", help=f"insist on the attributes of {ATTRIBUTES.name} as labels"
    )
    parser.add_argument("--crop", choices=list(CROPS), default="addtt", help=told)


RECIPE = Recipe(
    name="celeba64",
    looks={f"celeba64_{name}": ((3, 64, 64), 256) for name in CROPS},
    images="162,770 + 19,867 + 19,962",
    pixels="64x64 colour",
    download="1.4 GB",
    dump="2.5 GB",
    licence="non-commercial",
    write=write,
    add_own_options=add_options,
    access="manual",
    variants={f"celeba64_{name}": {"crop": name} for name in CROPS},
)
