"""Pictures and other files inside zips, tars and folders, read one by one: nothing is ever unpacked to disk."""

import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from lvae_torch.errors import DataError

MAX_MEMBER = 256 * 2**20  # bytes of one unpacked file that is read into memory; the largest picture has a few MB
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


class Archive(Protocol):
    """Some files with names; a context manager's value."""

    @property
    def path(self) -> Path: ...

    @property
    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...


@dataclass(frozen=True)
class ZipArchive:
    path: Path
    file: zipfile.ZipFile

    @property
    def names(self) -> list[str]:
        return [
            _safe(self.path, info.filename, _is_zip_link(info)) for info in self.file.infolist() if not info.is_dir()
        ]

    def read(self, name: str) -> bytes:
        with reading(self.path, name), self.file.open(name) as member:
            return _bounded(self.path, name, member.read(MAX_MEMBER + 1))


@dataclass(frozen=True)
class TarArchive:
    path: Path
    file: tarfile.TarFile
    members: dict[str, tarfile.TarInfo]

    @property
    def names(self) -> list[str]:
        return list(self.members)

    def read(self, name: str) -> bytes:
        with reading(self.path, name):
            member = self.file.extractfile(self.members[name])
            assert member is not None, name
            data = _bounded(self.path, name, member.read(MAX_MEMBER + 1))
            if len(data) != self.members[name].size:
                raise EOFError("cut off")
        return data


@dataclass(frozen=True)
class Folder:
    path: Path

    @property
    def names(self) -> list[str]:
        return [path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file()]

    def read(self, name: str) -> bytes:
        with reading(self.path, name), open(self.path / name, "rb") as file:
            return _bounded(self.path, name, file.read(MAX_MEMBER + 1))


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """A zip, a tar (also compressed) or a folder, open for reading.

    Raises:
        DataError: if it is none of these, damaged, or has members that lead out of it.
    """
    if path.is_dir():
        yield Folder(path)
    elif path.suffix == ".zip":
        with reading(path), zipfile.ZipFile(path) as file:
            yield ZipArchive(path, file)
    elif ".tar" in path.suffixes or path.suffix == ".tgz":
        with reading(path), tarfile.open(path) as tar:
            names = ((member, _safe(path, member.name, member.issym() or member.islnk())) for member in tar)
            yield TarArchive(path, tar, {name: member for member, name in names if member.isfile()})
    else:
        raise DataError(f"{path}: neither a folder nor a .zip or .tar file.")


@contextmanager
def reading(path: Path, member: str = "") -> Iterator[None]:
    """Turn what a damaged file makes the libraries raise into a message that names it."""
    try:
        yield
    except DataError:
        raise
    except (OSError, EOFError, KeyError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}{f': {member}' if member else ''}: damaged or cut off ({error}).") from error
    except (zipfile.BadZipFile, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{path}{f': {member}' if member else ''}: damaged or cut off ({error}).") from error


def pictures_of(archive: Archive) -> list[str]:
    """Names of the pictures in an archive, in the order of their numbers; other files are left out.

    Raises:
        DataError: if there is none.
    """
    found = [name for name in archive.names if is_picture(name)]
    if not found:
        raise DataError(f"{archive.path}: holds no pictures ({', '.join(sorted(PICTURES))}).")
    return sorted(found, key=by_number)


def is_picture(name: str) -> bool:
    """Whether ``name`` is that of a picture, and not of what file managers leave beside them."""
    path = PurePosixPath(name)
    return path.suffix.lower() in PICTURES and not any(p.startswith((".", "__MACOSX")) for p in path.parts)


def by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts 2.png before 10.png."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _safe(path: Path, name: str, is_link: bool) -> str:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]:", name) or is_link:
        what = "is a link" if is_link else "leads out of the archive"
        raise DataError(f"{path}: its member {name!r} {what}: no dataset's archive has such. Get it from elsewhere.")
    return name


def _is_zip_link(info: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16)


def _bounded(path: Path, name: str, data: bytes) -> bytes:
    if len(data) > MAX_MEMBER:
        raise DataError(f"{path}: its member {name!r} unpacks to more than {MAX_MEMBER:,} bytes; not read further.")
    return data
