"""Several hosts on one machine: network namespaces with names, addresses and links of their own."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import pytest

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None,
    reason="needs root, iproute2 and util-linux",
)
NETWORK = "10.213.77"
CLUSTER = {"GLOO_SOCKET_IFNAME": "eth0", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # see docs/cluster.md
INSIDE = 'mount --bind "$1" /etc/hosts; hostname "$2"; shift 2; exec "$@"'


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30).stdout


@dataclass
class Hosts:
    """``node0`` to ``node{n-1}``, which know each other by name; what they say lies in ``folder``."""

    n: int
    folder: Path
    environment: Mapping[str, str]
    started: list[Popen[bytes]] = field(default_factory=list)

    def namespace(self, host: int) -> str:
        return f"lvae{os.getpid()}-{host}"

    def make(self) -> None:
        """Namespaces on a bridge in a namespace of its own: nothing of this machine's network is touched."""
        names = "".join(f"{NETWORK}.{host + 1} node{host}\n" for host in range(self.n))
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        switch = self.namespace(self.n)
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for host in range(self.n):
            own = self.namespace(host)
            ip("netns", "add", own)
            ip("-n", switch, "link", "add", f"port{host}", "type", "veth", "peer", "name", "eth0", "netns", own)
            ip("-n", switch, "link", "set", f"port{host}", "master", "bridge", "up")
            ip("-n", own, "addr", "add", f"{NETWORK}.{host + 1}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", own, "link", "set", device, "up")

    def start(self, host: int, command: Sequence[str]) -> Popen[bytes]:
        """Run ``command`` on one host; its output is added to ``log(host)``."""
        inside = ["sh", "-ec", INSIDE, "sh", str(self.folder / "hosts"), f"node{host}", *command]
        line = ["ip", "netns", "exec", self.namespace(host), "unshare", "--mount", "--uts", *inside]
        with open(self.log(host), "ab") as log:
            process = Popen(line, env={**self.environment, **CLUSTER}, stdout=log, stderr=log)
        self.started.append(process)
        return process

    def log(self, host: int) -> Path:
        return self.folder / f"node{host}.log"

    def pids(self, host: int, having: str = "") -> list[int]:
        """Processes of one host whose command line has ``having`` in it."""
        found = []
        for pid in map(int, ip("netns", "pids", self.namespace(host)).split()):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # gone already
                continue
            if words and having in words:
                found.append(pid)
        return found

    def kill(self, host: int, having: str = "") -> None:
        """End all of a host's processes, or some, as a loss of power would."""
        for pid in self.pids(host, having):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def link(self, host: int, state: str) -> None:
        """Take a host's link ``down`` or ``up``."""
        ip("-n", self.namespace(self.n), "link", "set", f"port{host}", state)

    def remove(self) -> None:
        for host in range(self.n + 1):
            if self.namespace(host) in ip("netns", "list"):
                for _ in range(20):  # one that is just being started would be missed
                    self.kill(host)
                    if not self.pids(host):
                        break
                    time.sleep(0.1)
                ip("netns", "del", self.namespace(host))
        for process in self.started:
            process.wait(timeout=30)


@contextmanager
def hosts(n: int, folder: Path, environment: Mapping[str, str]) -> Iterator[Hosts]:
    """``n`` hosts, removed at the end with everything that runs on them."""
    made = Hosts(n, folder, environment)
    try:
        made.make()
        yield made
    finally:
        made.remove()
