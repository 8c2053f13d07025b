"""Which pages may ask: those of this server. Any page of the web can send requests to 127.0.0.1 by a person's browser.

It keeps out no program on this machine, whoever's it is: there is no password.
A name of the web may also lead to 127.0.0.1 (DNS rebinding), so the name in the address must be the loopback's own.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""With every answer: the page may load and send nothing elsewhere, and stand in no other page."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def reason_to_refuse(headers: dict[str, str], is_page: bool) -> str | None:
    """Why a request is refused, or None. ``is_page``: it is for the page itself, to which others may link."""
    host = headers.get("host", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if name not in LOOPBACK:
        return f"The explorer answers at 127.0.0.1 and localhost only, not as {host[:100]!r}."
    if (origin := headers.get("origin")) is not None and origin != f"http://{host}":
        return f"The explorer answers its own page only, not one of {origin[:100]!r}."
    site = headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none") and not (is_page and headers.get("sec-fetch-mode") == "navigate"):
        return "The explorer answers its own page only, not one of another site."
    return None


class Guard:
    """Refuses requests of others with status 403, before anything else sees them."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; other kinds than HTTP are closed without an answer."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(key.lower().encode(), value.encode()) for key, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        is_page = scope["method"] == "GET" and scope["path"] == "/"
        if (reason := reason_to_refuse(headers, is_page)) is None:
            await self.app(scope, receive, with_headers)
            return
        start = {"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]}
        await with_headers(start)
        await send({"type": "http.response.body", "body": reason.encode()})
