"""What the explorer's server refuses: wrong requests, other askers, and pictures that are none."""

import zlib
from typing import Any

import pytest
from explore_cases import HOST, IMAGE, png

pytest.importorskip("fastapi", reason="the extra 'explore' is not installed")
from fastapi.testclient import TestClient

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
