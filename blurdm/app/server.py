"""``blurdm app``: a web server for the browser of this machine alone.

Other web pages cannot use it: a request must have this address as its host and, to change anything, as its origin.
Results have unguessable addresses, and the page's content security policy allows no foreign sources.
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

from blurdm.app.worker import Event, Worker, find_models
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
    """Middleware that accepts requests from this server's page or the address bar alone, and adds ``HEADERS``."""

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


def make_app(worker: Worker, address: str) -> Starlette:
    """The application at ``address`` (as ``http://127.0.0.1:8000``), with the models and results of ``worker``."""

    async def home(request: Request) -> Response:
        return HTMLResponse(_page(list(worker.models)))

    async def restore(request: Request) -> Response:
        try:
            models = request.query_params.getlist("model")
            for model in models:
                require("model", model, worker.models)
            if not models:
                raise InputError("no model is chosen; choose one or more")
        except InputError as error:
            return _refused(400, str(error))
        if worker.busy:
            return _refused(503, "another photo is being restored; drop this one again when that is done")
        worker.busy = True  # without await since the check, so no other request came between
        try:
            content = await _body(request)
        except BaseException as error:
            worker.busy = False
            if isinstance(error, InputError | ClientDisconnect):
                return _refused(413, str(error))
            raise
        events = start_restoring(worker, content, request.query_params.get("name", "photo"), models)
        return StreamingResponse(events, media_type="application/x-ndjson")

    async def result(request: Request) -> Response:
        stored = worker.results.get(request.path_params["address"])
        if stored is None:
            return _refused(404, "this result is gone: only the last ones are kept; restore the photo again")
        return FileResponse(stored.file, filename=stored.name, media_type="application/octet-stream")

    routes = [
        Route("/", home),
        Route("/restore", restore, methods=["POST"]),
        Route("/results/{address}", result),
    ]
    return Starlette(routes=routes, middleware=[Middleware(OwnPageOnly, address)])


async def _body(request: Request) -> bytes:
    """The content of the photo's file; InputError, without reading on, if it is larger than MOST_BYTES."""
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


def start_restoring(worker: Worker, content: bytes, name: str, models: list[str]) -> AsyncIterator[str]:
    """Start restoring; returns the events, a line of JSON each.

    It stops at the next tile when the browser leaves. A browser that leaves before it reads anything is not noticed:
    then the photo is restored to its end, after which the worker is free as well.
    """
    loop, queue, left = asyncio.get_running_loop(), asyncio.Queue[Event | None](), False

    def send(event: Event | None) -> None:
        with suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(queue.put_nowait, event)

    def ended(_: Any) -> None:
        worker.busy = False
        send(None)

    async def events() -> AsyncIterator[str]:
        nonlocal left
        try:
            while (event := await queue.get()) is not None:
                yield json.dumps(event) + "\n"
        finally:
            left = True

    worker.start(content, name, models, send, lambda: left).add_done_callback(ended)
    return events()


def _refused(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status)


def _page(models: list[str]) -> str:
    """The page, with a checkbox for each of ``models``, the first one checked."""
    body, style, script = ((files("blurdm.app") / f"app.{kind}").read_text() for kind in ("html", "css", "js"))
    boxes: list[str] = []
    for name in map(escape, models):
        checked = "" if boxes else " checked"
        boxes.append(f'<label><input type="checkbox" name="model" value="{name}"{checked}> {name}</label>\n')
    body = body.replace("$models", "".join(boxes)).replace("$endings", ",".join(sorted(ENDINGS)))
    return page("Restore a photo", body, style, script, policy="connect-src 'self'")


def serve(port: int, folder: Path, given: list[str], memory: str, notify: Callable[[str], object] = print) -> int:
    """Serve until Ctrl-C; exit code 0. InputError for a port that is taken, or without a model."""
    parse_memory(memory)
    keep_freed_memory()
    models = find_models(folder, given)
    with socket.socket() as listening, tempfile.TemporaryDirectory(prefix="blurdm-app-") as results:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"--port {port}: {reason}; give another, or 0 for any that is free") from None
        address = f"http://{HOST}:{listening.getsockname()[1]}"
        worker = Worker(models, memory, Path(results))
        worker.load(
            [next(iter(models)), *given]
        )  # in this thread: PyTorch's profiler must first be called in the main one
        settings = uvicorn.Config(
            make_app(worker, address),
            log_level="error",
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        # uvicorn shuts down, then raises the signal again; SIGTERM must not end the process before our clean-up
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        notify(f"{address} is the page; Ctrl-C ends it")
        try:
            with suppress(KeyboardInterrupt):
                uvicorn.Server(settings).run(sockets=[listening])
        finally:
            worker.close()
    return 0
