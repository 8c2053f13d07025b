"""Pictures and other files inside zips, tars and folders, read one by one: nothing is ever unpacked to disk."""

import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Protocol

from data_scripts import spans
from data_scripts.kinds import by_number
from data_scripts.rows import Readable
from data_scripts.spans import BadFileError, Span
from lvae_torch.errors import DataError

CHUNK = 2**20
MOST_MEMBERS = 10_000_000  # ImageNet has 1.3 million
MOST_EXPANSION = 200  # times the size of the archive; pictures hardly shrink, arrays of few values to a hundredth
ALWAYS_ALLOWED = 2**30  # bytes that a small archive may hold all the same
PICTURES = {"png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"}
DAMAGE = (
    *(OSError, EOFError, KeyError, ValueError, NotImplementedError, RuntimeError, SyntaxError, TokenError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tarfile.TarError, BadFileError),
)
"""What damaged files make the libraries raise."""


class Archive(Protocol):
    """Some files with names."""

    @property
    def path(self) -> Path: ...

    @property
    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def span(self, name: str) -> Readable: ...


@dataclass(frozen=True)
class SpanArchive:
    """A zip, a plain tar or a folder: any process can read any of its files."""

    path: Path
    spans: dict[str, Span]

    @property
    def names(self) -> list[str]:
        return list(self.spans)

    def span(self, name: str) -> Span:
        return self.spans[name]

    def read(self, name: str) -> bytes:
        try:
            return self.spans[name].read()
        except BadFileError as error:
            raise DataError(f"{self.path}: {name}: {error}. Get the file again.") from error


@dataclass(frozen=True)
class PackedTar:
    """A compressed tar, which can only be read front to back."""

    path: Path
    file: tarfile.TarFile
    members: dict[str, tarfile.TarInfo]

    @property
    def names(self) -> list[str]:
        return list(self.members)

    def span(self, name: str) -> Span:
        raise DataError(
            f"{self.path}: pictures in a compressed tar lie where nothing can reach them; unpack it to .tar."
        )

    def read(self, name: str) -> bytes:
        with reading(self.path, name):
            member = self.file.extractfile(self.members[name])
            assert member is not None, name
            if self.members[name].size > spans.MAX_MEMBER:
                raise EOFError(f"more than {spans.MAX_MEMBER:,} bytes")
            return member.read()


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """A zip, a tar (also compressed) or a folder, open for reading.

    Raises:
        DataError: if it is none of these, damaged, or has members that lead out of it.
    """
    suffixes = path.suffixes
    if path.is_dir():
        yield SpanArchive(path, _in_folder(path))
    elif path.suffix == ".zip":
        yield SpanArchive(path, _in_zip(path))
    elif path.suffix == ".tar":
        yield SpanArchive(path, _in_tar(path))
    elif path.suffix == ".tgz" or ".tar" in suffixes:
        with ExitStack() as stack:
            with reading(path):
                tar = stack.enter_context(tarfile.open(path))
            yield PackedTar(path, tar, _members(path, tar))
    else:
        raise DataError(f"{path}: neither a folder nor a .zip or .tar file.")


def _in_folder(path: Path) -> dict[str, Span]:
    with reading(path):
        files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
        told = {name: file.stat() for name, file in files.items()}
    return {
        name: Span(str(file), 0, told[name].st_size, told[name].st_size, modified=told[name].st_mtime_ns)
        for name, file in files.items()
    }


def _in_zip(path: Path) -> dict[str, Span]:
    members = zip_members(path)
    for info, is_link, _ in members:
        _check_name(path, info.filename, is_link)
    return {info.filename: span for info, _, span in members}


def zip_members(path: Path) -> list[tuple[zipfile.ZipInfo, bool, Span]]:
    """Each file of a zip, whether it is a link, and where its bytes are; names may be anything.

    Raises:
        DataError: if it is damaged, blows up, is encrypted or packed in a way that is not read here.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    _check_amount(path, len(infos), sum(info.file_size for info in infos))
    modified, found = path.stat().st_mtime_ns, []
    for info in infos:
        if info.flag_bits & 1 or info.compress_type not in (spans.STORED, spans.DEFLATED):
            raise DataError(f"{path}: {info.filename}: encrypted, or packed in an unusual way. Pack it again, plainly.")
        place = (str(path), info.header_offset, info.compress_size, info.file_size)
        span = Span(*place, info.CRC, True, info.compress_type, modified)
        found.append((info, stat.S_ISLNK(info.external_attr >> 16), span))
    return found


def _in_tar(path: Path) -> dict[str, Span]:
    with reading(path), tarfile.open(path, "r:") as tar:
        members = _members(path, tar)
    return {name: tar_span(path, member) for name, member in members.items()}


def tar_span(path: Path, member: tarfile.TarInfo) -> Span:
    """Where the bytes of a file in a plain tar are."""
    return Span(str(path), member.offset_data, member.size, member.size, modified=path.stat().st_mtime_ns)


def whole_tar(path: Path, tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """All members of a tar, whose end has been seen; names may be anything.

    Raises:
        DataError: if it is cut off, damaged or blows up.
    """
    with reading(path):
        members = _bounded(path, tar)
        file = tar.fileobj
        assert file is not None, path
        # Where tarfile finds no member it takes the archive to be at its end, which it is if empty blocks follow.
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("the end is missing")
        while chunk := file.read(CHUNK):  # to the end of the file, where gzip compares its check sum
            if chunk.strip(b"\0"):
                raise EOFError("more lies behind its end: several tars in one file? Unpack it with tar --ignore-zeros")
    return members


def _members(path: Path, tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    members = whole_tar(path, tar)
    for member in members:
        _check_name(path, member.name, is_link=member.issym() or member.islnk())
        if not (member.isfile() or member.isdir()):
            raise DataError(f"{path}: its member {member.name!r} is a device or a pipe. Get it from elsewhere.")
    return {member.name: member for member in members if member.isfile()}


@contextmanager
def reading(path: Path, member: str = "") -> Iterator[None]:
    """Turn what a damaged file makes the libraries raise into a message that names it."""
    try:
        yield
    except DataError:
        raise
    except DAMAGE as error:
        what = " ".join(str(error).split())  # some libraries write several lines
        raise DataError(f"{path}{f': {member}' if member else ''}: damaged or cut off ({what}).") from error


def pictures_of(archive: Archive) -> list[str]:
    """Names of the pictures in an archive, in the order of their numbers; other files are left out.

    Raises:
        DataError: if there is none.
    """
    found = [name for name in archive.names if is_picture(name)]
    if not found:
        raise DataError(f"{archive.path}: holds no pictures (.{', .'.join(sorted(PICTURES))}).")
    return sorted(found, key=by_number)


def is_picture(name: str) -> bool:
    """Whether ``name`` is that of a picture, and not of what file managers leave beside them."""
    return name.rpartition(".")[2].lower() in PICTURES and not is_stray(name)


def is_stray(name: str) -> bool:
    """Whether file managers leave files of that name beside others."""
    parts = name.split("/")
    return any(part.startswith((".", "__MACOSX")) for part in parts if part != ".")  # tars' members often begin with it


def _bounded(path: Path, tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """All members; to get past one is to unpack it, so each is judged before."""
    members, size = [], 0
    for member in tar:
        members.append(member)
        size += member.size
        _check_amount(path, len(members), size)
    return members


def most_unpacked(path: Path) -> int:
    """Bytes that an archive may grow to; one that holds more is taken to be made to fill the disk."""
    return max(ALWAYS_ALLOWED, MOST_EXPANSION * path.stat().st_size)


def _check_amount(path: Path, n_members: int, size: int) -> None:
    most = most_unpacked(path)
    if n_members > MOST_MEMBERS or size > most:
        raise DataError(
            f"{path}: holds {n_members:,} files of {size:,} bytes or more, which is no dataset's measure (at most "
            f"{MOST_MEMBERS:,} files and {most:,} bytes for an archive of its size). Get it from elsewhere."
        )


def _check_name(path: Path, name: str, is_link: bool) -> None:
    parts = re.split(r"[/\\]", name)
    if is_link or not parts[0] or ".." in parts or re.match(r"[A-Za-z]:", name):
        what = "is a link" if is_link else "leads out of the archive"
        raise DataError(f"{path}: its member {name!r} {what}: no dataset's archive has such. Get it from elsewhere.")
