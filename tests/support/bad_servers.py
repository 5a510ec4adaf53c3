"""Local servers that answer HTTP requests in the ways that hold up or mislead a client."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def drip(connection: socket.socket, request: bytes) -> None:
    """One byte at a time: no read ever times out."""
    connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.2)


def silent(connection: socket.socket, request: bytes) -> None:
    time.sleep(60)


def redirect(connection: socket.socket, request: bytes) -> None:
    path = request.split()[1].decode()
    connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {path}x\r\nContent-Length: 0\r\n\r\n".encode())


def broken(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops")


def flood(connection: socket.socket, request: bytes) -> None:
    """An answer without end, as fast as it can be sent."""
    connection.sendall(HEAD + b"\r\n")
    while True:
        connection.sendall(b" " * 2**20)


def echo(connection: socket.socket, request: bytes) -> None:
    """An error page that repeats the request, credentials included, as some proxies do."""
    page = request.replace(b"\r\n", b" ")
    connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n" % len(page) + page)


KINDS: dict[str, Callable[[socket.socket, bytes], None]] = {
    answer.__name__: answer for answer in (drip, silent, redirect, broken, flood, echo)
}


@contextmanager
def bad_server(kind: str) -> Iterator[int]:
    """The port of a server of this kind."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve, args=(listening, KINDS[kind]), daemon=True).start()
        yield listening.getsockname()[1]


def _serve(listening: socket.socket, answer: Callable[[socket.socket, bytes], None]) -> None:
    def converse(connection: socket.socket) -> None:
        with connection, suppress(OSError, IndexError):
            answer(connection, connection.recv(65536))

    with suppress(OSError):
        while True:
            threading.Thread(target=converse, args=(listening.accept()[0],), daemon=True).start()
