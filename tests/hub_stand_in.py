"""A stand-in for the hub's HTTP interface on the loopback: repositories with revisions, downloads and uploads."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlparse

from sites import serving

Files = dict[str, bytes]
LARGE = ".safetensors"  # kept in the large file storage, under their sha256


@dataclass
class Hub:
    """What the server holds, and what it was asked."""

    url: str = ""
    revisions: dict[tuple[str, str], Files] = field(default_factory=dict)
    """(user/name, branch or commit) -> files."""
    asked: list[str] = field(default_factory=list)
    stored: Files = field(default_factory=dict)
    """Large files that were uploaded, by sha256."""

    def put(self, repo: str, files: Files, branch: str = "main") -> str:
        """Add a revision; its commit."""
        digest = hashlib.sha1(repr(sorted((k, hashlib.sha1(v).hexdigest()) for k, v in files.items())).encode())
        commit = digest.hexdigest()
        self.revisions[repo, branch] = self.revisions[repo, commit] = files
        return commit

    def commit_of(self, repo: str, revision: str) -> str:
        files = self.revisions[repo, revision]
        return next(r for (n, r), f in self.revisions.items() if n == repo and f is files and len(r) == 40)


def etag(name: str, data: bytes) -> str:
    return (hashlib.sha256 if name.endswith(LARGE) else hashlib.sha1)(data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments: object) -> None:
        self.hub = hub
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlparse(self.path).path.strip("/").split("/")]
        self.hub.asked.append(f"{self.command} {'/'.join(parts)}")
        match parts:
            case ["api", "models", user, name]:
                return self._about(f"{user}/{name}", "main")
            case ["api", "models", user, name, "revision", revision]:
                return self._about(f"{user}/{name}", revision)
            case ["api", "models", user, name, "tree", revision, *_]:
                return self._tree(f"{user}/{name}", revision)
            case [user, name, "resolve", revision, file]:
                return self._file(f"{user}/{name}", revision, file)
        return self._refuse("EntryNotFound")

    def do_POST(self) -> None:
        parts = [unquote(part) for part in urlparse(self.path).path.strip("/").split("/")]
        self.hub.asked.append(f"POST {'/'.join(parts)}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match parts:
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                return self._json({"url": f"{self.hub.url}/{asked.get('organization', 'me')}/{asked['name']}"})
            case ["api", "models", _, _, "preupload", _]:
                files = [file["path"] for file in json.loads(body)["files"]]
                modes = ["lfs" if file.endswith(LARGE) else "regular" for file in files]
                told = [{"path": f, "uploadMode": m, "shouldIgnore": False} for f, m in zip(files, modes, strict=True)]
                return self._json({"files": told})
            case [*_, "info", "lfs", "objects", "batch"]:
                objects = json.loads(body)["objects"]
                upload = [
                    {**one, "actions": {"upload": {"href": f"{self.hub.url}/large/{one['oid']}", "header": {}}}}
                    for one in objects
                ]
                return self._json({"transfer": "basic", "objects": upload})
            case ["api", "models", user, name, "commit", revision]:
                return self._commit(f"{user}/{name}", revision, body)
        return self._json({}, 200)

    def do_PUT(self) -> None:
        self.hub.asked.append("PUT large")
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.stored[self.path.rpartition("/")[2]] = data
        self._answer(200, b"", {})

    def _about(self, repo: str, revision: str) -> None:
        if (repo, revision) not in self.hub.revisions:
            known = any(name == repo for name, _ in self.hub.revisions)
            return self._refuse("RevisionNotFound" if known else "RepoNotFound")
        files = self.hub.revisions[repo, revision]
        siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
        about = {"id": repo, "modelId": repo, "sha": self.hub.commit_of(repo, revision), "siblings": siblings}
        return self._json({**about, "private": False, "gated": False, "tags": [], "downloads": 0, "likes": 0})

    def _tree(self, repo: str, revision: str) -> None:
        if (repo, revision) not in self.hub.revisions:
            return self._refuse("RevisionNotFound")
        tree = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            | ({"lfs": {"oid": etag(name, data), "size": len(data), "pointerSize": 1}} if name.endswith(LARGE) else {})
            for name, data in self.hub.revisions[repo, revision].items()
        ]
        return self._json(tree)

    def _file(self, repo: str, revision: str, name: str) -> None:
        files = self.hub.revisions.get((repo, revision))
        if files is None or name not in files:
            return self._refuse("EntryNotFound")
        told = {"ETag": f'"{etag(name, files[name])}"', "X-Repo-Commit": self.hub.commit_of(repo, revision)}
        if name.endswith(LARGE):
            told |= {"X-Linked-Etag": told["ETag"], "X-Linked-Size": str(len(files[name]))}
        return self._answer(200, files[name], told)

    def _commit(self, repo: str, revision: str, body: bytes) -> None:
        files = dict(self.hub.revisions.get((repo, revision), {}))
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        commit = self.hub.put(repo, files, revision)
        return self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit, "success": True})

    def _refuse(self, code: str) -> None:
        self._answer(404, b"", {"X-Error-Code": code, "X-Error-Message": "not here"})

    def _json(self, value: object, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(hub: Hub) -> Iterator[Hub]:
    """The hub with its address, while the server runs."""
    with serving(partial(Handler, hub)) as hub.url:
        yield hub
