"""Serves the page on the loopback, and opens it in the browser."""

import os
import socket
import sys
import threading
import webbrowser

import uvicorn

from lvae_torch.errors import say
from lvae_torch.explore.server import make_app
from lvae_torch.explore.stage import Stage

HOST = "127.0.0.1"
MOST_CONNECTIONS = 200


def serve(stage: Stage, port: int, opens_browser: bool) -> None:
    """Serve until Ctrl-C, at ``port`` or at another one if that is taken."""
    listening = listen(port)
    address = f"http://{HOST}:{listening.getsockname()[1]}/"
    config = uvicorn.Config(
        make_app(stage), log_level="error", access_log=False, limit_concurrency=MOST_CONNECTIONS, server_header=False
    )
    server = _Server(config, address, opens_browser)
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # the usual end
        print("ended", flush=True)
    finally:
        listening.close()


def listen(port: int) -> socket.socket:
    """A socket that listens at ``port`` of the loopback, or at any free one if that is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        say(f"port {port} cannot be had ({error.strerror}), so another one is taken")
        listening.bind((HOST, 0))
    listening.listen()
    return listening


class _Server(uvicorn.Server):
    """Tells its address once it answers."""

    def __init__(self, config: uvicorn.Config, address: str, opens_browser: bool) -> None:
        super().__init__(config)
        self.address, self.opens_browser = address, opens_browser

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"{self.address}    (Ctrl-C ends it)", flush=True)
        if self.opens_browser and has_screen():
            threading.Thread(target=webbrowser.open, args=(self.address,), daemon=True).start()


def has_screen() -> bool:
    """Whether a browser would have a window; one of the terminal would take the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
