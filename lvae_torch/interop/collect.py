"""The files of a run of another program: one file, a folder, or a zip archive as it was downloaded."""

import glob
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from lvae_torch.errors import DataError
from lvae_torch.interop.recognition import Found, Kind, UnknownFileError, recognise
from lvae_torch.interop.torch_files import is_torch_zip

MOST_FILES, DEEPEST, LONGEST_NAME = 2000, 6, 255
USELESS = {".png", ".jpg", ".jpeg", ".txt", ".md", ".py", ".npy", ".npz"}
"""Pictures, logs for people and arrays, of which no run is made."""
SETTINGS = {Kind.VDVAE_LOG, Kind.VDVAE_HPARAMS, Kind.EFFICIENT_CFG, Kind.LADDER_FLAGS}
_OF_VDVAE = ("{own}", "log.jsonl", "config.json", "hparams.json")
_OF_EFFICIENT_VDVAE = ("*.cfg", "logs-{run}/*.cfg", "../logs-{run}/*.cfg")
SETTINGS_BESIDE = {
    Kind.VDVAE_RAW: _OF_VDVAE, Kind.VDVAE_AVERAGED: _OF_VDVAE, Kind.LADDER_WEIGHTS: ("config.pkl",),
    Kind.EFFICIENT_TORCH: _OF_EFFICIENT_VDVAE, Kind.EFFICIENT_JAX: _OF_EFFICIENT_VDVAE,
}  # fmt: skip
"""Where the settings of a file lie: names from its folder on."""


@contextmanager
def recognised(source: Path, scratch: Path) -> Iterator[list[Found]]:
    """Every file below ``source`` that belongs to a program we know, with its content.

    Args:
        scratch: folder in which an archive's files lie while they are read; nothing is left there.
    Raises:
        DataError: if there is nothing, or nothing known, or one of the files is damaged.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder.")
    if source.is_dir():
        yield _known(source, _below(source))
    elif zipfile.is_zipfile(source) and not is_torch_zip(source):
        with _unpacked(source, scratch) as folder:
            yield _known(source, _below(folder))
    else:
        file = recognise(source)
        yield [file, *_settings_beside(file)]


def _settings_beside(file: Found) -> Iterator[Found]:
    """The settings of a single file of weights, where its program lays them; whatever else lies there is let be."""
    folder = file.path.resolve().parent
    for pattern in SETTINGS_BESIDE.get(file.kind, ()):
        own = re.sub(r"model(-ema)?\.\w+$", "log.jsonl", file.path.name)  # of openai/vdvae
        run = next((n[12:] for n in (file.path.name, folder.name) if n.startswith("checkpoints-")), "")
        for path in sorted(folder.glob(pattern.format(own=glob.escape(own), run=glob.escape(run)))):
            if path.is_file() and path != file.path.resolve():
                with suppress(DataError):
                    if (found := recognise(path.resolve())).kind in SETTINGS:
                        yield found


def _below(folder: Path) -> list[Path]:
    """Files that may be of use, in order; links are not followed."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and len(path.relative_to(folder).parts) <= DEEPEST
    ]
    if len(files) > MOST_FILES:
        raise DataError(f"{folder}: {len(files):,} files lie there; give the folder of one run.")
    return [path for path in files if path.suffix.lower() not in USELESS and path.stat().st_size]


def _known(source: Path, files: list[Path]) -> list[Found]:
    found, unknown = [], list[str]()
    for path in files:
        try:
            found.append(recognise(path))
        except UnknownFileError as error:
            unknown.append(str(error))
    if not found or (unknown and not any(file.kind in SETTINGS_BESIDE for file in found)):
        told = "\n  ".join(unknown[:5]) or "it has no files of weights or settings"
        what = "no weights" if found else "nothing"
        raise DataError(
            f"{source}: {what} of openai/vdvae, Efficient-VDVAE or ladder-vae-pytorch can be read there:\n  {told}"
        )
    return found


@contextmanager
def _unpacked(archive_path: Path, scratch: Path) -> Iterator[Path]:
    """The members of an archive as files in a folder that goes away again.

    Raises:
        DataError: if the archive is damaged, or its files do not fit on the disk.
    """
    with TemporaryDirectory(dir=scratch, prefix="unpacked.") as folder:
        try:
            _unpack(archive_path, Path(folder))
        except DataError:
            raise
        except RuntimeError as error:
            told = "it is locked with a password" if "password" in str(error) else f"a damaged zip archive ({error})"
            raise DataError(f"{archive_path}: refused: {told}.") from error
        except Exception as error:  # each way of compressing has errors of its own
            raise DataError(f"{archive_path}: refused: a damaged zip archive ({error}); fetch it again.") from error
        yield Path(folder)


def _unpack(archive_path: Path, folder: Path) -> None:
    """Under names that cannot leave the folder."""
    with zipfile.ZipFile(archive_path) as archive:
        members = [m for m in archive.infolist() if not m.is_dir() and m.file_size and _is_plain(m)]
        members = [m for m in members if PurePosixPath(m.filename).suffix.lower() not in USELESS]
        needed = sum(member.file_size for member in members)
        if len(members) > MOST_FILES or needed > shutil.disk_usage(folder).free:
            raise DataError(
                f"{archive_path}: unpacked it is {len(members):,} files of {needed:,} bytes; too many, or too large "
                f"for {folder.parent}. Unpack it elsewhere, and give the folder of one run."
            )
        for i, member in enumerate(members):
            target = folder / str(i) / PurePosixPath(member.filename).name
            target.parent.mkdir()
            with archive.open(member) as source, open(target, "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)


def _is_plain(member: zipfile.ZipInfo) -> bool:
    """Whether it is a file with a name of its own: no link, no way out of its folder."""
    name = PurePosixPath(member.filename)
    kind = member.external_attr >> 28  # of a member made under Unix: 0o10 a file, 0o12 a link, 0 unknown
    is_name = name.name not in ("", ".", "..") and len(name.name.encode()) <= LONGEST_NAME
    return kind in (0, 0o10) and is_name and not name.name.startswith("._")
