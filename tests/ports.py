"""A port where processes are to meet, which nobody else is given meanwhile."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_port() -> Iterator[int]:
    """A port of the loopback that is free for who asks for it by number; the system gives it to nobody inside.

    One that was merely looked up may be another process's, of a test beside this one, before the first rank listens.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # who listens sets it too, and this never does
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]
