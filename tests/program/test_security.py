"""What a hostile file, name or neighbour can do, where no other test looks: the table is in ``docs/reliability.md``."""

import ast
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from PIL import Image

from lvae_torch.cfg.seal import sealed
from lvae_torch.data.shards import decode_png
from lvae_torch.errors import CfgError, DataError
from lvae_torch.files import read_json
from lvae_torch.hparams import load
from lvae_torch.synthesis.parts import read_part
from lvae_torch.synthesize import synthesize
from lvae_torch.train import train
from lvae_torch.trained.loading import find_run
from lvae_torch.training.step import TrainStep

ROOT = Path(__file__).resolve().parents[2]
SERVERS = {"http.server", "socketserver", "xmlrpc.server"}
LISTENING = "0A"  # the state of a socket in /proc/net/tcp


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small.write_dump(tmp_path / "dumps")
    return tmp_path


# The network


def listening() -> set[str]:
    """Sockets of this process that accept connections."""
    own = set()
    for handle in Path("/proc/self/fd").iterdir():
        try:
            own.add(os.readlink(handle).removeprefix("socket:[").removesuffix("]"))  # noqa: PTH115
        except OSError:
            continue  # of this very listing
    tables = (Path("/proc/self/net") / name for name in ("tcp", "tcp6"))
    lines = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return {line[9] for line in lines if line[3] == LISTENING and line[9] in own}


def test_nothing_listens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While training, evaluating, reporting and using a run, with one process."""
    before, seen, call = listening(), [], TrainStep.__call__

    def watched(self: TrainStep, raw: torch.Tensor, step: int, *labels: torch.Tensor) -> None:
        call(self, raw, step, *labels)
        seen.append(listening() - before)

    monkeypatch.setattr(TrainStep, "__call__", watched)
    train(small.settings(folder, train__steps=4))
    synthesize(small.settings(folder), ["generation"])
    assert [*seen, listening() - before] == [set()] * 5


def test_a_listening_socket_would_be_seen() -> None:
    import socket

    before = listening()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert len(listening() - before) == 1


EXPLORER = ROOT / "lvae_torch" / "explore" / "serving.py"


def sources() -> list[Path]:
    return sorted(path for room in ("lvae_torch", "data_scripts") for path in (ROOT / room).rglob("*.py"))


def test_the_explorer_listens_at_the_loopback_alone() -> None:
    text = EXPLORER.read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    bound = [ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func).endswith(".bind")]
    assert bound and all(address.startswith("(HOST, ") for address in bound) and 'HOST = "127.0.0.1"\n' in text


def test_no_file_starts_a_server_or_a_shell() -> None:
    """Commands are lists of words, and only those who fetch data know of the network."""
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [
                f"{path}: {n}" for n in names if n in {"http.server", "socketserver", "xmlrpc", "marshal", "shelve"}
            ]
            if isinstance(node, ast.Call):
                call, says = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
                is_shell = call in {"os.system", "os.popen"} or says.get("shell", "False") != "False"
                serves = call.endswith((".listen", ".bind")) and path != EXPLORER
                found += [f"{path}:{node.lineno}: {call}"] if is_shell or serves else []
    assert not found, "\n".join(["", *found])


# Files from elsewhere


class Trap:
    """Pickles as a call that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def bare_pickle(path: Path, trap: Trap) -> None:
    path.write_bytes(pickle.dumps(trap))


def array_of_objects(path: Path, trap: Trap) -> None:
    """As NumPy itself would keep it: inside of what looks like a part."""
    with open(path, "wb") as file:
        np.savez(file, **{"z.0": np.array([trap], dtype=object)})


TRAPS = pytest.mark.parametrize("write", [bare_pickle, array_of_objects])


@TRAPS
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_code_in_an_encoding_is_not_run(folder: Path, write: Callable[[Path, Trap], None], suffix: str) -> None:
    own = small.settings(folder, synthesis__shard_format=suffix[1:])
    train(own)
    synthesize(own, ["encoding"])
    write(folder / "runs" / "small" / "synthesis" / "encoding" / f"part_00000{suffix}", Trap(folder / "sprung"))
    with pytest.raises(DataError, match="part_00000"):
        synthesize(own, ["decoding"])
    assert not (folder / "sprung").exists()


@TRAPS
def test_code_in_the_statistics_that_masks_come_from_is_not_run(
    folder: Path, write: Callable[[Path, Trap], None]
) -> None:
    train(small.settings(folder))
    synthesize(small.settings(folder), ["div_stats"])
    write(folder / "runs" / "small" / "synthesis" / "div_stats" / "div_stats.npz", Trap(folder / "sprung"))
    with pytest.raises(DataError, match=r"div_stats\.npz"):
        synthesize(small.settings(folder, synthesis__keep_fraction=0.5), ["reconstruction"])
    assert not (folder / "sprung").exists()


def test_an_index_cannot_point_out_of_its_folder(folder: Path) -> None:
    train(small.settings(folder))
    synthesize(small.settings(folder), ["encoding"])
    index = folder / "runs" / "small" / "synthesis" / "encoding" / "index.json"
    index.write_text(json.dumps(read_json(index) | {"parts": ["../../../../secret.npz"]}))
    with pytest.raises(CfgError, match="a part in"):
        synthesize(small.settings(folder), ["decoding"])


def test_parts_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    """Compressed zeros, and an array whose head promises more than there is."""
    packed, promised = tmp_path / "packed.npz", tmp_path / "promised.npz"
    np.savez_compressed(packed, z=np.zeros(2**24, dtype=np.uint8))
    head = io.BytesIO()
    np.lib.format.write_array_header_2_0(head, {"descr": "|u1", "fortran_order": False, "shape": (2**60,)})
    with zipfile.ZipFile(promised, "w") as file:
        file.writestr("z.npy", head.getvalue() + b"few bytes")
    for path in (packed, promised):
        with pytest.raises(DataError, match=path.name):
            read_part(path)


def test_json_that_nests_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(DataError, match=r"deep\.json: cannot be read as JSON"):
        read_json(tmp_path / "deep.json")


def test_a_large_picture_in_a_dump_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    Image.new("L", (5000, 5000)).save(out, "png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was unpacked"))
    with pytest.raises(DataError, match="5000x5000 pixels"):
        decode_png(out.getvalue(), (8, 8, 1), Path("train_00000.bin"))


# Names and settings


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc", ".hidden", "-rf", "a..b", "a b", "ä", "a\nb", ""])
@pytest.mark.parametrize(
    "key", ["run__name", "data__dataset", "data__train_split", "train__initial_run", "synthesis__codes_to",
            "synthesis__prior_run", "synthesis__mode"]
)  # fmt: skip
def test_no_name_in_a_cfg_is_a_path(tmp_path: Path, key: str, name: str) -> None:
    with pytest.raises(CfgError):
        small.settings(tmp_path, **{key: name})


def test_a_cfg_cannot_run_anything(tmp_path: Path) -> None:
    """In any place of the file, whatever its key."""
    mark = tmp_path / "sprung"
    for value in (f"__import__('pathlib').Path({str(mark)!r}).touch()", f"open({str(mark)!r}, 'w')", "${HOME}", "`id`"):
        (tmp_path / "bad.cfg").write_text(small.CFG.replace("learning_rate = 1e-3", f"learning_rate = {value}"))
        with pytest.raises(CfgError, match="learning_rate"):
            load(tmp_path / "bad.cfg")
    assert not mark.exists()


@pytest.mark.parametrize("edit", [
    lambda text: text.replace("seed = 42", "seed = 43"), lambda text: text[:-10], lambda text: text.replace("e", "f", 1)
])  # fmt: skip
def test_a_changed_copy_of_the_settings_is_named(tmp_path: Path, edit: Callable[[str], str]) -> None:
    """Unless the checksum is taken away, which is how a copy becomes a cfg of one's own."""
    run = tmp_path / "runs" / "small"
    run.mkdir(parents=True)
    text = small.CFG.replace("[run]", "[run]\nseed = 42")
    (run / "hparams.cfg").write_text(sealed(text))
    assert find_run(str(run))[0].run.seed == 42
    first, _, rest = sealed(text).partition("\n")
    (run / "hparams.cfg").write_text(f"{first}\n{edit(rest)}")
    with pytest.raises(CfgError, match=r"hparams\.cfg: damaged, or edited.*delete its first line"):
        find_run(str(run))
    (run / "hparams.cfg").write_text(text)
    assert find_run(str(run))[0].run.seed == 42
