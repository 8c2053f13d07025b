"""What the explorer's server refuses, what it takes, and in which order it works."""

import asyncio
import io
import socket
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import explore_cases
import numpy as np
import pytest
from explore_cases import png
from PIL import Image

from lvae_torch.errors import CfgError, DataError
from lvae_torch.trained.run import TrainedRun

pytest.importorskip("fastapi", reason="the extra 'explore' is not installed")
from fastapi.testclient import TestClient

from lvae_torch.explore.__main__ import command, opening
from lvae_torch.explore.guard import HEADERS
from lvae_torch.explore.newest import Newest, SupersededError
from lvae_torch.explore.server import PAGE, make_app
from lvae_torch.explore.serving import listen
from lvae_torch.explore.stage import Stage
from lvae_torch.explore.views import VIEWS

HOST = "127.0.0.1:8765"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return explore_cases.run_of("spatial_lvae", tmp_path_factory.mktemp("served"))


@pytest.fixture
def client(run: TrainedRun) -> Iterator[TestClient]:
    with TestClient(make_app(Stage(run, "run")), base_url=f"http://{HOST}", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def idle(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A client for requests after which the model must not have worked."""

    def worked(*arguments: Any, **named: Any) -> None:
        raise AssertionError("the model was asked")

    for name in ("sample", "draw", "encode", "decode", "elbo", "kl_of_units", "reconstruct"):
        monkeypatch.setattr(TrainedRun, name, worked)
    return client


IMAGE = {"split": "test", "index": 0}
MOVE = {"layer": 0, "channel": 0, "value": 1.0}
WRONG: list[tuple[str, Any, str]] = [
    ("samples", {"n": 0}, "n: "),
    ("samples", {"n": 10**9}, "n: "),
    ("samples", {"n": 5000}, "5000 images are too many"),
    ("samples", {"n": "64"}, "n: "),
    ("samples", {"n": 3.5}, "n: "),
    ("samples", {"n": True}, "n: "),
    ("samples", {"seed": -1}, "seed: "),
    ("samples", {"seed": 2**40}, "seed: "),
    ("samples", {"show": "median"}, "show: "),
    ("samples", {"temperature": -1}, "temperature"),
    ("samples", {"temperature": 1e300}, "temperature"),
    ("samples", {"temperature": [1.0]}, "1 temperatures; this run has 2 layers"),
    ("samples", {"temperature": [1.0] * 12000}, "temperature"),
    ("samples", {"temperature": ["quadratic", 1, 1]}, "temperature"),
    ("samples", {"keep": {"sample": 64, "layers": 1}}, "no sample 64"),
    ("samples", {"keep": {"sample": 0, "layers": 3}}, "no layer 2"),
    ("samples", {"keep": {"sample": -1, "layers": 1}}, "keep.sample: "),
    ("samples", {"file": "/etc/passwd"}, "file: "),
    ("samples", [], ""),
    ("reconstruction", {}, "image: "),
    ("reconstruction", {"image": {"split": "test", "index": 17}}, "test has 0 to 16"),
    ("reconstruction", {"image": {"split": "test", "index": -1}}, "image"),
    ("reconstruction", {"image": {"split": "../../etc", "index": 0}}, "no image 0 in '../../etc'"),
    ("reconstruction", {"image": {"upload": "../../etc/passwd"}}, "image"),
    ("reconstruction", {"image": {"upload": "0" * 16}}, "drop it onto the page again"),
    ("reconstruction", {"image": {"point": [0, 0]}}, "no points of the plane"),
    ("reconstruction", {"image": IMAGE, "heat": 2}, "no layer 2"),
    ("reconstruction", {"image": {**IMAGE, "seed": 1}}, "image"),
    ("mix", {"a": IMAGE}, "b: "),
    ("mix", {"a": IMAGE, "b": IMAGE, "layers": 3}, "no layer 2"),
    ("mix", {"a": IMAGE, "b": IMAGE, "weight": 1.5}, "weight: "),
    ("latents", {"base": IMAGE, "moves": []}, "moves: "),
    ("latents", {"base": IMAGE, "moves": [MOVE] * 17}, "moves: "),
    ("latents", {"base": IMAGE, "moves": [{**MOVE, "layer": 2}]}, "no layer 2"),
    ("latents", {"base": IMAGE, "moves": [{**MOVE, "channel": 3}]}, "no channel 3"),
    ("latents", {"base": IMAGE, "moves": [{**MOVE, "value": 1e9}]}, "value: "),
    ("latents", {"base": IMAGE, "moves": [{**MOVE, "at": [0, 99]}]}, r"no place (0, 99)"),
    ("latents", {"base": IMAGE, "moves": [{**MOVE, "at": [-1, 0]}]}, "at.0: "),
]


@pytest.mark.parametrize(("view", "asked", "told"), WRONG, ids=lambda value: str(value)[:50])
def test_wrong_requests_are_told_and_begin_no_work(idle: TestClient, view: str, asked: Any, told: str) -> None:
    answer = idle.post(f"/api/{view}", json=asked)
    assert answer.status_code == 422, answer.text
    assert told in answer.json()["error"] and len(answer.json()["error"]) < 1100


def test_what_is_no_request_is_told(idle: TestClient) -> None:
    def status(**given: Any) -> int:
        answer = idle.post("/api/samples", **given)
        assert answer.json()["error"]
        return answer.status_code

    as_json = {"Content-Type": "application/json"}
    assert status(content=b"{", headers=as_json) == 400
    assert status(content=b"\xff\xfe", headers=as_json) == 400
    assert status(content=b'{"seed": NaN}', headers=as_json) == 422
    assert status(content=b"{}") == status(content=b"{}", headers={"Content-Type": "text/plain"}) == 415
    assert status(content=b" " * 2**17, headers=as_json) == 413
    assert status(content=(b" " * 2**10 for _ in range(100)), headers=as_json) == 413  # without a length
    assert idle.post("/api/nothing", json={}).status_code == 404
    assert idle.get("/api/samples").status_code == 405


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/..%2f..%2fpyproject.toml", "/page/page.js", "/server.py", "/docs", "//etc/passwd"],
)
def test_only_the_page_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 and "Not Found" in answer.text


def test_the_page_is_small_and_loads_from_nowhere_else(client: TestClient) -> None:
    texts = [client.get(address) for address in PAGE]
    assert all(answer.status_code == 200 for answer in texts)
    assert sum(len(answer.content) for answer in texts) < 300_000
    for answer in texts:
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "") and "https://" not in answer.text
        assert {key.lower(): value for key, value in HEADERS.items()}.items() <= dict(answer.headers).items()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8765"}, 200),
        ({"Host": "[::1]:8765"}, 200),
        ({"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "evil.example:8765"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "192.168.0.7:8765"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "[::1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_only_the_page_itself_is_answered(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert client.post("/api/samples", json={"n": 1}, headers=headers).status_code == status
    assert client.get("/api/run", headers=headers).status_code == status
    picture = client.post("/api/pictures", content=png(8, 8), headers=headers)
    assert picture.status_code == status


def test_others_may_link_to_the_page(client: TestClient) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200
    assert client.get("/page.js", headers=link).status_code == 403


def bomb(width: int, height: int) -> bytes:
    """A PNG of many black pixels in few bytes: its head is all that may be read."""
    whole = png(1, 1)
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + whole[24:29]
    chunk = b"IHDR" + head
    return whole[:8] + (13).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + whole[33:]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no picture"),
        (png(50, 40)[:60], "no picture"),
        (png(50, 40)[:-40], "no picture"),
        (bomb(25_000, 20_000), "too many pixels"),
        (bomb(10_000, 6_000), "10000 x 6000 pixels are too many"),
        (bomb(2**31 - 1, 2**31 - 1), "too many"),
    ],
)
def test_broken_and_huge_pictures_are_refused(idle: TestClient, data: bytes, told: str) -> None:
    answer = idle.post("/api/pictures", content=data, headers={"X-Name": "a.png"})
    assert answer.status_code == 422 and told in answer.json()["error"], answer.text


def test_an_upload_of_too_many_bytes_is_refused(idle: TestClient) -> None:
    assert idle.post("/api/pictures", content=b"x" * (2**25 + 1)).status_code == 413


@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA"])
def test_a_dropped_picture_is_an_image_like_others(
    run: TrainedRun, client: TestClient, tmp_path: Path, kind: str
) -> None:
    data = png(31, 17, kind)
    answer = client.post("/api/pictures", content=data, headers={"X-Name": "..%2Fmy%20digit%C3%A9.png"}).json()
    assert answer["name"] == "my digité.png"
    assert answer["told"].startswith("31 x 17, cropped to 17 x 17, ") and "to 8 x 8 pixels, 2 levels" in answer["told"]
    path = tmp_path / "digit.png"
    path.write_bytes(data)
    x = run.picture(path)
    assert x.shape == (1, 1, 8, 8) and set(x.unique().tolist()) <= {0.0, 1.0}
    found = client.post("/api/reconstruction", json={"image": {"upload": answer["upload"]}}).json()
    assert found["numbers"]["elbo"] == pytest.approx(float(run.elbo(x, seed=0).elbo[0]), rel=1e-6)
    assert "run.picture('my digité.png')" in found["lines"]
    again = client.post("/api/pictures", content=data, headers={"X-Name": "other.png"}).json()
    assert again["upload"] == answer["upload"], "the same pixels have the same name, so that links stay true"
    with pytest.raises(DataError, match="cannot be read"):
        run.picture(tmp_path / "nothing.png")


def test_many_uploads_take_no_more_memory(run: TrainedRun) -> None:
    stage = Stage(run, "run")
    keys = [stage.keep_upload(gradient(k), f"{k}.png")[0] for k in range(70)]
    assert len(stage.uploads) == 64 and keys[-1] in stage.uploads and keys[0] not in stage.uploads


def gradient(k: int) -> bytes:
    buffer = io.BytesIO()
    bits = [(k >> j) & 1 for j in range(8)] * 8
    Image.fromarray((np.array(bits, np.uint8) * 255).reshape(8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_newest_request_of_a_page_takes_the_place_of_those_that_wait() -> None:
    done: list[str] = []
    release, begun = threading.Event(), threading.Event()

    def work(name: str) -> str:
        done.append(name)
        if name == "first":
            begun.set()
            assert release.wait(20)
        return name

    async def ask() -> list[Any]:
        queue = Newest()
        first = asyncio.ensure_future(queue.run("a", lambda: work("first")))
        while not begun.is_set():
            await asyncio.sleep(0.005)
        later = []
        for asker, name in (("a", "second"), ("b", "other"), ("a", "third"), ("a", "fourth")):
            later.append(asyncio.ensure_future(queue.run(asker, lambda name=name: work(name))))
            await asyncio.sleep(0.01)
        superseded = [later[0].done(), later[2].done()]  # at once, not when their turn comes
        release.set()
        return [superseded, await asyncio.gather(first, *later, return_exceptions=True)]

    superseded, results = asyncio.run(ask())
    assert superseded == [True, True]
    assert done == ["first", "other", "fourth"]
    assert [r if isinstance(r, str) else type(r) for r in results] == [
        "first", SupersededError, "other", SupersededError, "fourth"
    ]  # fmt: skip


def test_work_that_fails_is_told_and_the_next_is_done(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(stage: Stage, asked: Any) -> Any:
        raise MemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setitem(VIEWS, "samples", (VIEWS["samples"][0], broken))  # type: ignore[arg-type]
        assert client.post("/api/samples", json={}).status_code >= 500
    assert client.post("/api/samples", json={"n": 1}).status_code == 200


def test_a_taken_port_makes_another_one() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with listen(taken) as listening:
            host, port = listening.getsockname()
            assert host == "127.0.0.1" and port not in (0, taken)


def test_the_command_says_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(CfgError, match="there is no such run"):
        command([str(tmp_path / "nothing")])
    with pytest.raises(CfgError, match="--port is 70000"):
        command(["nothing", "--port", "70000"])


def test_without_its_dataset_a_run_shows_samples_and_says_why(tmp_path: Path) -> None:
    run = explore_cases.run_of("spatial_lvae", tmp_path)
    (tmp_path / "dumps").rename(tmp_path / "elsewhere")
    with TestClient(make_app(Stage(run, "run")), base_url=f"http://{HOST}") as client:
        told = client.get("/api/run").json()
        assert told["splits"] == {} and "no dump of that name" in told["remarks"][-1]
        assert client.post("/api/reconstruction", json={"image": {"seed": 1}}).status_code == 200
        answer = client.post("/api/reconstruction", json={"image": IMAGE})
        assert answer.status_code == 422 and "The dataset is not here" in answer.json()["error"]
        dropped = client.post("/api/pictures", content=png(20, 20)).json()
        assert "the run's dump is not here to say how it was made" in dropped["told"]


def test_the_lines_open_the_run_as_the_command_did(run: TrainedRun) -> None:
    told = opening(run, "it's", ["run.device=cpu", "synthesis.checkpoint=4"], "elsewhere")
    assert (
        told == """lvae_torch.load_run("it's", device="cpu", runs='elsewhere', settings=['synthesis.checkpoint=4'])"""
    )
