"""The server of the page: typed requests in, pictures and numbers out. It opens no file that a request names."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import PurePath
from typing import Any, TypeVar
from urllib.parse import unquote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException as AnyHTTPException

from lvae_torch.data.pictures import MOST_BYTES
from lvae_torch.distributed.memory import is_out_of_memory
from lvae_torch.errors import CfgError, DataError, say
from lvae_torch.explore.description import describe
from lvae_torch.explore.guard import Guard
from lvae_torch.explore.newest import BusyError, Newest, SupersededError
from lvae_torch.explore.requests import View
from lvae_torch.explore.stage import RefusedError, Stage
from lvae_torch.explore.views import VIEWS

T = TypeVar("T")
PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("page", "state", "parts", "controls", "views")
    },
}
"""Every file that is served, by its address."""
MOST_JSON = 2**16  # bytes of a request for a view
MOST_NAME = 120  # characters of a dropped picture's name


def make_app(stage: Stage) -> Guard:
    """The application for one run."""
    app = FastAPI(title="lvae explore", docs_url=None, redoc_url=None, openapi_url=None)
    _add_page(app)
    _add_api(app, stage, Newest())

    @app.exception_handler(AnyHTTPException)
    async def told(request: Request, error: AnyHTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code)

    return Guard(app)


def _add_page(app: FastAPI) -> None:
    folder = files("lvae_torch.explore") / "page"
    for address, (name, kind) in PAGE.items():
        content = (folder / name).read_bytes()

        def page(content: bytes = content, kind: str = kind) -> Response:
            return Response(content, media_type=kind)

        app.add_api_route(address, page, methods=["GET"], response_model=None)


def _add_api(app: FastAPI, stage: Stage, queue: Newest) -> None:
    @app.get("/api/run")
    async def about(request: Request) -> JSONResponse:
        return JSONResponse(await _worked(queue, "about", lambda: describe(stage)))

    @app.post("/api/pictures")
    async def drop(request: Request) -> JSONResponse:
        name = PurePath(unquote(request.headers.get("x-name", ""))).name[:MOST_NAME] or "picture.png"
        data = await _body(request, MOST_BYTES)
        key, upload = await _worked(queue, f"drop {_asker(request)}", lambda: stage.keep_upload(data, name))
        return JSONResponse({"upload": key, "name": upload.name, "told": upload.told})

    @app.post("/api/{view}")
    async def look(view: str, request: Request) -> JSONResponse:
        if view not in VIEWS:
            raise HTTPException(404, f"There is no view {view[:50]!r}; there are {', '.join(VIEWS)}.")
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise HTTPException(415, "Send JSON, as application/json.")
        kind, answer = VIEWS[view]
        asked = _parsed(kind, await _body(request, MOST_JSON))

        def work() -> dict[str, Any]:
            shown = stage.in_class(asked.label, asked.subject)
            return answer(shown, asked).packed(shown.identity, view, asked.model_dump(mode="json"))

        return JSONResponse(await _worked(queue, f"{view} {_asker(request)}", work))


def _asker(request: Request) -> str:
    """Which page of the browser asks."""
    return request.headers.get("x-page", "")[:40]


async def _worked(queue: Newest, asker: str, work: Callable[[], T]) -> T:
    """The result of ``work``, or the status that says why there is none."""
    try:
        return await queue.run(asker, work)
    except SupersededError as error:
        raise HTTPException(409, "A newer request of the same page took the place of this one.") from error
    except BusyError as error:
        raise HTTPException(429, "Too many pages ask at once; try again.") from error
    except (RefusedError, CfgError, DataError) as error:
        raise HTTPException(422, str(error)) from error
    except Exception as error:
        if is_out_of_memory(error):
            raise HTTPException(503, "There is not enough memory for this; ask for fewer images.") from error
        say(f"explore: {asker.split()[0]}: {error!r}")
        raise HTTPException(500, "This failed; the terminal of lvae explore says why.") from error


def _parsed(kind: type[View], body: bytes) -> View:
    """The request, or status 400 or 422 with everything that is wrong with it."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        problems = [_told(problem) for problem in error.errors(include_url=False, include_input=False)]
        is_json = all(problem["type"] != "json_invalid" for problem in error.errors(include_url=False))
        raise HTTPException(422 if is_json else 400, "; ".join(dict.fromkeys(problems))[:1000]) from error


def _told(problem: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("Of", "function")))
    return f"{place[:100]}: {problem['msg']}" if place else str(problem["msg"])


async def _body(request: Request, most: int) -> bytes:
    """The body; more than ``most`` bytes are refused, before they are read where their number is told."""
    told = request.headers.get("content-length", "0")
    if not told.isdecimal():
        raise HTTPException(400, "Content-Length is no number.")
    body = bytearray()
    if int(told) <= most:
        async for part in request.stream():
            body += part
            if len(body) > most:
                break
        else:
            return bytes(body)
    size = f"{most >> 20} MiB" if most >= 2**20 else f"{most >> 10} KiB"
    raise HTTPException(413, f"This is larger than {size}, the most that is taken.")
