"""``blurdm app``: a web server for the browser of this machine alone.

Other web pages cannot use it: a request must have this address as its host and, to change anything, as its origin.
Results have unguessable addresses, and the page's content security policy allows no foreign sources.
"""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blurdm.app.connection import AbortingServer, Connection
from blurdm.app.models import OfferedModel, find_models
from blurdm.app.worker import Event, Worker, unnamed_file
from blurdm.core.allocator import keep_freed_memory
from blurdm.core.errors import InputError
from blurdm.pages import page
from blurdm.restore.memory import parse_memory
from blurdm.restore.photo import ENDINGS

HOST = "127.0.0.1"
BACKLOG = 2048  # connections that wait to be accepted
MOST_BYTES = 256 << 20  # of a photo's file
MOST_TOGETHER = 4 * MOST_BYTES  # of all photos that are on their way
BLOCK = 1 << 16  # bytes of a result sent at a time; as many may wait on every connection
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",  # the rest of the policy is in the page itself
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Connection": "close",  # so that a time limit is that of one request
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


class Arrivals:
    """Photos that are on their way, which take MOST_TOGETHER bytes at most."""

    size = 0  # bytes

    async def receive(self, request: Request) -> IO[bytes]:
        """The photo's file, as it was sent. It waits on disk: others may be sent, and restored, meanwhile."""
        too_large = HTTPException(413, f"the file is larger than {MOST_BYTES >> 20} MB; use 'blurdm deblur' for it")
        if int(request.headers.get("content-length", 0)) > MOST_BYTES:
            raise too_large
        file, size = unnamed_file(), 0
        try:
            async for part in request.stream():
                size, self.size = size + len(part), self.size + len(part)
                if size > MOST_BYTES:
                    raise too_large
                if self.size > MOST_TOGETHER:
                    raise HTTPException(503, "too many photos are being sent at once; drop this one again later")
                file.write(part)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        finally:
            self.size -= size
        return file


def make_app(worker: Worker, address: str) -> Starlette:
    """The application at ``address`` (as ``http://127.0.0.1:8000``), with the models and results of ``worker``."""
    arrivals = Arrivals()

    async def home(request: Request) -> Response:
        return HTMLResponse(_page(worker.models))

    async def restore(request: Request) -> Response:
        # all of it is read before anything is refused: a browser shows no answer while it still sends
        photo = await arrivals.receive(request)
        models = list(dict.fromkeys(request.query_params.getlist("model")))
        refused = _refusal(worker, models)
        if refused:
            photo.close()
            return refused
        worker.busy = True  # without await since the check, so no other request came between
        events = start_restoring(
            worker, photo, request.query_params.get("name", "photo"), models, request.state.connection
        )
        return StreamingResponse(events, media_type="application/x-ndjson")

    async def result(request: Request) -> Response:
        stored = worker.results.get(request.path_params["address"])
        if stored is None:
            raise HTTPException(404, "this result is gone: only the last ones are kept; restore the photo again")

        async def blocks() -> AsyncIterator[bytes]:
            for start in range(0, stored.size, BLOCK):
                yield os.pread(stored.file.fileno(), BLOCK, start)

        headers = {
            "Content-Disposition": f"attachment; filename*=utf-8''{quote(stored.name, safe='')}",
            "Content-Length": str(stored.size),
        }
        return StreamingResponse(blocks(), headers=headers, media_type="application/octet-stream")

    return Starlette(
        routes=[
            Route("/", home),
            Route("/restore", restore, methods=["POST"]),
            Route("/results/{address}", result),
        ],
        middleware=[Middleware(OwnPageOnly, address)],
        exception_handlers=dict.fromkeys((HTTPException, ClientDisconnect, OSError), _failed),
    )


def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return _refused(error.status_code, error.detail)
    if isinstance(error, ClientDisconnect):
        return _refused(400, "the photo did not arrive whole")
    return _refused(507, f"the photo cannot be kept: {getattr(error, 'strerror', None) or error}")


def _refusal(worker: Worker, models: list[str]) -> Response | None:
    """The answer to a photo that is not restored; None if it is."""
    for model in models:
        if model not in worker.models or worker.models[model].problem:
            return _refused(400, f"no model {model!r} can be used; choose another")
    if not models:
        return _refused(400, "no model is chosen; choose one or more")
    if worker.busy:
        return _refused(503, "another photo is being restored; drop this one again when that is done")
    return None


def start_restoring(
    worker: Worker, photo: IO[bytes], name: str, models: list[str], connection: Connection
) -> AsyncIterator[str]:
    """Start restoring; returns the events, a line of JSON each.

    It stops at the next tile when the browser leaves. Meanwhile the connection has no time limit.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Event | None]()
    connection.limit.cancel()

    def send(event: Event) -> None:
        with suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(queue.put_nowait, event)

    def ended() -> None:
        worker.busy = False
        queue.put_nowait(None)
        if not connection.lost():
            connection.limit_time()

    def on_done(_: Any) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(ended)

    async def events() -> AsyncIterator[str]:
        while (event := await queue.get()) is not None:
            yield json.dumps(event) + "\n"

    worker.start(photo, name, models, send, connection.lost).add_done_callback(on_done)
    return events()


def _refused(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status)


def _page(models: dict[str, OfferedModel]) -> str:
    """The page, with a checkbox for each of ``models``, the first one that can be used checked."""
    body, style, script = ((files("blurdm.app") / f"app.{kind}").read_text() for kind in ("html", "css", "js"))
    usable = [name for name, choice in models.items() if not choice.problem]
    boxes = []
    for name, choice in models.items():
        state = " disabled" if choice.problem else " checked" if name == usable[0] else ""
        about = f"cannot be used: {choice.problem}" if choice.problem else f"trained on {choice.trained_on}"
        boxes.append(
            f'<label><input type="checkbox" name="model" value="{escape(name)}"{state}> {escape(name)}'
            f" <small>{escape(about)}</small></label>\n"
        )
    body = body.replace("$models", "".join(boxes)).replace("$endings", ",".join(sorted(ENDINGS)))
    return page("Restore a photo", body.replace("$most", str(MOST_BYTES)), style, script, policy="connect-src 'self'")


def serve(port: int, folder: Path, given: list[str], memory: str | None, device: str) -> int:
    """Serve until Ctrl-C, restoring on ``device`` (cpu, cuda, cuda:N); exit code 0.

    InputError for a port that is taken, or without a model.
    """
    parse_memory(memory)
    keep_freed_memory()
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
            listening.listen(BACKLOG)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"--port {port}: {reason}; give another, or 0 for any that is free") from None
        address = f"http://{HOST}:{listening.getsockname()[1]}"
        worker = Worker(find_models(folder, given), memory, device)
        worker.load_first()  # in this thread: PyTorch's profiler must first be called in the main one
        settings = uvicorn.Config(
            make_app(worker, address),
            http=Connection,
            log_level="error",
            lifespan="off",
            ws="none",
            backlog=BACKLOG,
            server_header=False,
        )
        # uvicorn shuts down, then raises the signal again; SIGTERM must not end the process before our clean-up
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            print(f"{address} is the page; Ctrl-C ends it", flush=True)
            AbortingServer(settings).run(sockets=[listening])
    if not worker.close(seconds=1):
        os._exit(0)  # in the middle of a tile; Python would wait for it, and nothing is left to clean up
    return 0
