"""What a file is, by its first bytes and where those say nothing by its ending; and what no picture is."""

import re
from pathlib import PurePosixPath

HEAD = 64  # bytes that tell

PICTURE_ENDINGS = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif", "jif", "mpo"), "JPEG"),
    **dict.fromkeys(("png", "apng"), "PNG"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **dict.fromkeys(("jp2", "j2k", "jpx", "jpf", "jpc", "j2c"), "JPEG2000"),
    **dict.fromkeys(("ppm", "pgm", "pbm", "pnm"), "PPM"),
    **dict.fromkeys(("heic", "heif", "hif"), "HEIF"),
    **{end: end.upper() for end in ("gif", "webp", "bmp", "avif", "psd", "tga", "pcx", "sgi", "qoi", "dds")},
    **{end: end.upper() for end in ("jxl", "exr", "hdr")},  # pictures that stop the command: Pillow cannot read them
}
"""Endings of pictures, and Pillow's name of the format."""

UNSEEN = {
    "camera raw, which a program must develop first": (
        "3fr arw cr2 cr3 crw dcr dng erf iiq kdc mef mos mrw nef nrw orf pef raf rw2 rwl sr2 srw x3f"
    ),
    "a film; take its frames out first": "mp4 mov avi mkv webm m4v mpg mpeg wmv 3gp mts flv",
    "a drawing without pixels; export it as PNG": "svg svgz eps ai pdf ps wmf emf",
    "a scan or a measurement; convert it to TIFF": "dcm dicom nii fits fit mrc czi lif nd2 svs ndpi",
    "an archive of a kind that is not read; unpack it": "7z rar zst lz4 lzma ace arj cab iso dmg",
}
"""Endings of what holds pictures in a way, but none that could be taken as it is."""
_UNSEEN = {end: reason for reason, ends in UNSEEN.items() for end in ends.split()}

SYSTEM_FOLDERS = {
    *("__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin", "recycler"),
    *("system volume information", "lost+found", "network trash folder", "temporary items", "found.000"),
}
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "zbthumbnail.info", "icon\r"}

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"8BPS\0\1", "PSD"),
    (b"qoif", "QOI"),
    (b"DDS |", "DDS"),
    (b"\xff\x0a", "JXL"),
    (b"\0\0\0\x0cJXL ", "JXL"),
    (b"v/1\1", "EXR"),
    (b"PK\3\4", "zip"),
    (b"PK\5\6", "zip"),
    (b"\x1f\x8b", "packed"),
    (b"BZh", "packed"),
    (b"\xfd7zXZ\0", "packed"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x93NUMPY", "npy"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"PAR1", "parquet"),
    (b"ARROW1\0\0", "arrow"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIF"
)
_BMP_HEADERS = [bytes([size]) for size in (12, 40, 52, 56, 64, 108, 124)]
"""Bytes of a BMP's second header, of each version that Pillow reads."""
CONTAINER_ENDINGS = re.compile(
    r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz)|npy|npz|h5|hdf5|parquet|arrow|feather|lmdb|mdb)$", re.IGNORECASE
)
"""Files that hold many pictures; anything else that looks like a zip inside may be a document."""


def kind_of(head: bytes) -> str:
    """What the first bytes of a file say it is: a format of Pillow's, a container, or "" for none of these."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "")
    if head[:2] == b"BM" and head[6:10] == bytes(4) and head[14:15] in _BMP_HEADERS:
        return "BMP"
    if re.match(rb"P[1-7]\s", head):
        return "PPM"
    return ""


def ending(name: str) -> str:
    """Of a file's name: in small letters, without the dot."""
    return name.rpartition("/")[2].rpartition(".")[2].lower()


def why_not(name: str) -> str:
    """Why a file is not even looked at, by its name; "" if it is."""
    for part in PurePosixPath(name).parts:
        if part.lower() in SYSTEM_FOLDERS or part.lower() in SYSTEM_FILES:
            return "the system's own, not a picture of yours"
        if part.startswith("."):
            return "hidden"
    return _UNSEEN.get(ending(name), "")


def no_picture(name: str) -> str:
    """The reason to leave out a file whose first bytes say nothing."""
    end = ending(name) if "." in name.rpartition("/")[2] else ""
    if end in ("gz", "bz2", "xz"):
        return "packed files; unpack them"
    return f"no pictures (.{end})" if re.fullmatch(r"[a-z0-9_]{1,10}", end) else "no pictures"


def by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts 2.png before 10.png; what is longer than any number that counts files is text."""
    is_number = re.compile(r"\d{1,99}").fullmatch
    return [(int(part), "") if is_number(part) else (-1, part) for part in re.split(r"(\d+)", name)]
