"""Bundles as one ``.zip`` file: written, and read without trust in its names and sizes."""

import atexit
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from lvae_torch.errors import DataError
from lvae_torch.files import NAME, atomic_write
from lvae_torch.runs.bundle import CARD, SETTINGS, WEIGHTS

MOST_TEXT = 4 * 2**20  # bytes of settings or card
MOST_RATIO = 50  # weights hardly shrink; what shrinks more is no bundle
KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
PIECE = 2**20
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)


def zip_bundle(folder: Path, path: Path) -> None:
    """Write the files of a bundle as one file. Weights do not shrink, so nothing is compressed.

    Raises:
        DataError: if there is something already, or the file cannot be written.
    """
    if path.exists():
        raise DataError(f"{path}: there is something already; name a new file.")
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name in (WEIGHTS, SETTINGS, CARD):
            archive.write(folder / name, name)


def unzipped(path: Path) -> Path:
    """The bundle of a zip file, as a folder that lasts as long as this process.

    Only the three files of a bundle are read, at the top or in one folder, and only as much of them as the zip says.

    Raises:
        DataError: if the file is damaged or no bundle, or says of a member what none of ours has.
    """
    place = Path(tempfile.mkdtemp(prefix="lvae_bundle_"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    folder = place / (path.stem if NAME.fullmatch(path.stem) else "bundle")
    folder.mkdir()
    with _reading(path), zipfile.ZipFile(path) as archive:
        members = _members(archive, path)
        if (needed := sum(member.file_size for member in members.values())) > shutil.disk_usage(folder).free:
            raise DataError(f"{path}: needs {needed:,} bytes in {place.parent}, which has less. Set TMPDIR.")
        for name, member in members.items():
            with atomic_write(folder / name, durable=False) as file:  # whose errors are not the archive's
                file.writelines(_pieces(archive, member, path))
    return folder


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged zip makes the library raise into a message that names it."""
    try:
        yield
    except DataError:
        raise
    except BROKEN as error:
        raise DataError(f"{path}: damaged, or no zip file ({error}). Copy or download it again.") from error


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The files of a bundle by name.

    Raises:
        DataError: for a missing or doubled file, a link, a cipher, or sizes that are no bundle's.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        place = PurePosixPath(member.filename)
        if place.name not in (WEIGHTS, SETTINGS, CARD) or len(place.parts) > 2 or ".." in place.parts:
            continue  # never looked at
        if place.name in found:
            raise DataError(f"{path}: has {place.name} twice; a bundle has one.")
        found[place.name] = member
        text, ratio = place.name != WEIGHTS, member.file_size / max(1, member.compress_size)
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if is_link or member.flag_bits & 1 or member.compress_type not in KINDS or ratio > MOST_RATIO or (
            text and member.file_size > MOST_TEXT
        ):  # fmt: skip
            raise DataError(
                f"{path}: {member.filename} is a link, enciphered, or of a size ({member.file_size:,} bytes in "
                f"{member.compress_size:,}) that no file of a bundle has. Get the bundle from a place you trust."
            )
    if missing := [name for name in (WEIGHTS, SETTINGS) if name not in found]:
        raise DataError(
            f"{path}: no whole bundle, {', '.join(missing)} is missing. lvae export RUN FILE.zip writes one."
        )
    return found


def _pieces(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Iterator[bytes]:
    left = member.file_size
    with _reading(path), archive.open(member) as source:
        while piece := source.read(PIECE):
            left -= len(piece)
            if left < 0:
                raise DataError(
                    f"{path}: {member.filename} is longer than the zip says. Get the bundle from a place you trust."
                )
            yield piece
