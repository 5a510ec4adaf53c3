"""``blurdm app``: the web server, for this machine's own browser alone, and what it refuses.

Other web pages cannot drive it: a request must name this very address as its host and, to change anything, as its
origin; results lie under unguessable addresses; and the page's content policy lets it load nothing from anywhere.
"""

import asyncio
import json
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blurdm.app.worker import Desk, Event, find_models
from blurdm.core.allocator import keep_freed_memory
from blurdm.core.errors import InputError
from blurdm.core.registry import require
from blurdm.pages import page
from blurdm.restore.memory import parse_memory
from blurdm.restore.photo import ENDINGS

HOST = "127.0.0.1"
MOST_BYTES = 256 << 20  # of a photo's file
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",  # the rest of the policy is in the page itself
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class OwnPageOnly:
    """Lets through what comes from this server's own page, or was typed into the address bar; adds ``HEADERS``."""

    def __init__(self, app: ASGIApp, address: str) -> None:
        self.app, self.address = app, address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        request = Request(scope)
        changes = request.method not in ("GET", "HEAD")
        own = request.headers.get("host") == self.address.removeprefix("http://")
        if not own or (changes and request.headers.get("origin") != self.address):
            answer = _refused(403, f"only the page {self.address} may ask for this")
            await answer(scope, receive, with_headers)
        else:
            await self.app(scope, receive, with_headers)


def make_app(desk: Desk, address: str) -> Starlette:
    """What answers at ``address`` (as ``http://127.0.0.1:8000``), with the models and results of ``desk``."""

    async def home(request: Request) -> Response:
        return HTMLResponse(_page(list(desk.models)))

    async def restore(request: Request) -> Response:
        try:
            models = request.query_params.getlist("model")
            for model in models:
                require("model", model, desk.models)
            if not models:
                raise InputError("no model is chosen; choose one or more")
        except InputError as error:
            return _refused(400, str(error))
        if desk.busy:
            return _refused(503, "another photo is being restored; drop this one again when that is done")
        desk.busy = True  # no other request can come between here and the question
        try:
            content = await _body(request)
        except BaseException as error:
            desk.busy = False
            if isinstance(error, InputError | ClientDisconnect):
                return _refused(413, str(error))
            raise
        events = _start(desk, content, request.query_params.get("name", "photo"), models)
        return StreamingResponse(events, media_type="application/x-ndjson")

    async def result(request: Request) -> Response:
        found = desk.results.get(request.path_params["address"])
        if found is None:
            return _refused(404, "this result is gone: only the last ones are kept; restore the photo again")
        return FileResponse(found.file, filename=found.name, media_type="application/octet-stream")

    routes = [
        Route("/", home),
        Route("/restore", restore, methods=["POST"]),
        Route("/results/{address}", result),
    ]
    return Starlette(routes=routes, middleware=[Middleware(OwnPageOnly, address)])


async def _body(request: Request) -> bytes:
    """The photo's file; InputError for one that is, or says to be, too large, of which no more is read."""
    too_large = InputError(f"the file is larger than {MOST_BYTES >> 20} MB; use 'blurdm deblur' for it")
    if int(request.headers.get("content-length", 0)) > MOST_BYTES:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def _start(desk: Desk, content: bytes, name: str, models: list[str]) -> AsyncIterator[str]:
    """Start restoring; returns what happens to the photo, a line of JSON each.

    A browser that leaves stops it at the next tile. One that left before it read anything never comes to that: then the
    photo is restored to its end, and the desk is free again all the same.
    """
    loop, queue, left = asyncio.get_running_loop(), asyncio.Queue[Event | None](), False

    def tell(event: Event | None) -> None:
        with suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(queue.put_nowait, event)

    def ended(_: Any) -> None:
        desk.busy = False
        tell(None)

    async def events() -> AsyncIterator[str]:
        nonlocal left
        try:
            while (event := await queue.get()) is not None:
                yield json.dumps(event) + "\n"
        finally:
            left = True

    desk.start(content, name, models, tell, lambda: left).add_done_callback(ended)
    return events()


def _refused(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status)


def _page(models: list[str]) -> str:
    here = files("blurdm.app")
    body, style, script = ((here / f"app.{kind}").read_text() for kind in ("html", "css", "js"))
    boxes = "".join(_box(name, chosen=number == 0) for number, name in enumerate(models))
    body = body.replace("$models", boxes).replace("$endings", ",".join(sorted(ENDINGS)))
    return page("Restore a photo", body, style, script, policy="connect-src 'self'")


def _box(name: str, chosen: bool) -> str:
    told = escape(name)
    return f'<label><input type="checkbox" name="model" value="{told}"{" checked" if chosen else ""}> {told}</label>\n'


def serve(port: int, folder: Path, given: list[str], memory: str, tell: Callable[[str], object] = print) -> int:
    """Serve until Ctrl-C; exit code 0. InputError for a port that is taken, or where there is no model."""
    parse_memory(memory)
    keep_freed_memory()
    models = find_models(folder, given)
    with _listen(port) as listening, tempfile.TemporaryDirectory(prefix="blurdm-app-") as results:
        address = f"http://{HOST}:{listening.getsockname()[1]}"
        desk = Desk(models, memory, Path(results))
        desk.load([next(iter(models)), *given])  # in this thread, in which PyTorch's profiler wants to be called first
        settings = uvicorn.Config(
            make_app(desk, address),
            log_level="error",
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        # uvicorn ends in good order, then raises the signal again: to clean up after it, SIGTERM must not kill
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        tell(f"{address} is the page; Ctrl-C ends it")
        try:
            with suppress(KeyboardInterrupt):
                uvicorn.Server(settings).run(sockets=[listening])
        finally:
            desk.close()
    return 0


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--port {port}: {reason}; give another, or 0 for any that is free") from None
    return listening
