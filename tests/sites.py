"""A web server on the loopback that holds a few files, and misbehaves as asked."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server holds, how it misbehaves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the connection is cut, one for each of the next answers."""
    halves: bool = False
    """Cut the connection in the middle of each file that is not asked for from some place on."""
    statuses: list[int] = field(default_factory=list)
    """Errors to answer with first."""
    ranges: bool = True
    says_length: bool = True
    continues_at: int = 0
    """By how much a continued answer begins at the wrong place."""
    moved: dict[str, str] = field(default_factory=dict)
    """Where else files are, by name."""
    asked: list[str] = field(default_factory=list)
    """Name and range of each request."""
    passwords: list[str] = field(default_factory=list)
    """What each request gave as such."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def __init__(self, site: Site, *arguments: object) -> None:
        self.site = site
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        site, name, wanted = self.site, self.path.lstrip("/"), self.headers.get("Range")
        site.asked.append(f"{name} {wanted}" if wanted else name)
        site.passwords.append(self.headers.get("Authorization", ""))
        if site.statuses:
            return self._answer(site.statuses.pop(0), b"")
        if name in site.moved:
            return self._answer(302, b"", moved=site.moved[name])
        if name not in site.files:
            return self._answer(404, b"")
        data = site.files[name]
        if not wanted or not site.ranges:
            return self._answer(200, data, cut=len(data) // 2 if site.halves else None)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(data):
            return self._answer(416, b"", f"bytes */{len(data)}")
        start += site.continues_at
        return self._answer(206, data[start:], f"bytes {start}-{len(data) - 1}/{len(data)}")

    def _answer(
        self, status: int, body: bytes, content_range: str | None = None, cut: int | None = None, moved: str = ""
    ) -> None:
        self.send_response(status)
        if moved:
            self.send_header("Location", moved)
        if self.site.says_length:
            self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body[: self.site.cuts.pop(0) if self.site.cuts and body else cut])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(site: Site) -> Iterator[Site]:
    """The site with its address, while the server runs."""
    with serving(partial(Handler, site)) as site.url:
        yield site


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server, while it runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
