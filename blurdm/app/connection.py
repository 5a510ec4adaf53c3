"""Connections with a time limit: a client that sends or reads too slowly loses its own, and holds up no other."""

import asyncio
from typing import Any

from uvicorn import Server
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 60.0  # for a request, and for what is left of its answer
MOST = 500  # connections under a time limit; of more, the oldest is ended


class Connection(H11Protocol):
    """A connection that is aborted after SECONDS; ``request.state.connection`` in the app.

    It serves one request, as long as the app answers with ``Connection: close``.
    """

    limit: asyncio.TimerHandle

    def __init__(self, app_state: dict[str, Any], **options: Any) -> None:
        super().__init__(app_state=app_state | {"connection": self}, **options)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.limit_time()
        limited = [other for other in self.connections if isinstance(other, Connection) and not other.limit.cancelled()]
        if len(limited) > MOST:
            min(limited, key=lambda other: other.limit.when()).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.limit.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer a client that breaks the protocol, or abort if the app is about to answer what it sent before."""
        if self.cycle is None:  # before the first request, although its annotation says otherwise
            super().send_400_response(msg)  # type: ignore[unreachable]
        else:
            self.transport.abort()

    def limit_time(self) -> None:
        """Abort in SECONDS. Abort, because a closed transport waits for what its client never reads."""
        self.limit = self.loop.call_later(SECONDS, self.transport.abort)

    def lost(self) -> bool:
        """True once nobody can read an answer."""
        return self.transport.is_closing()


class AbortingServer(Server):
    """A server that ends at once: it waits for no client."""

    async def shutdown(self, sockets: Any = None) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.transport.abort()
        await asyncio.sleep(0)  # in which they are lost
        await super().shutdown(sockets)
