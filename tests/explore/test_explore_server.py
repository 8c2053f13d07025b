"""What the explorer's server serves and takes, in which order it works, and how it starts."""

import asyncio
import io
import socket
import threading
from pathlib import Path
from typing import Any

import explore_cases
import numpy as np
import pytest
from explore_cases import HOST, IMAGE, png
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


def test_the_page_is_small_and_loads_from_nowhere_else(client: TestClient) -> None:
    texts = [client.get(address) for address in PAGE]
    assert all(answer.status_code == 200 for answer in texts)
    assert sum(len(answer.content) for answer in texts) < 300_000
    for answer in texts:
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "") and "https://" not in answer.text
        assert {key.lower(): value for key, value in HEADERS.items()}.items() <= dict(answer.headers).items()


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
