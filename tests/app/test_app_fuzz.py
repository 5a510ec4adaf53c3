"""Requests of any bytes to ``blurdm app``: an answer or a closed connection, and the next photo goes on."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.support.app import Served, serving
from tests.support.fuzz import mutated
from tests.support.photos import encoded, picture, run_folder
from tests.support.sections import paper_diffusion

NUMBER = 600
ODD_HEADERS = (
    *("Content-Length: -1", "Content-Length: 99999999999999999999", "Content-Length: 1e3", "Content-Length: \xb2"),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Expect: 100-continue", "Upgrade: websocket"),
    *("Range: bytes=-1", "Range: bytes=" + "0-," * 2000, "Cookie: " + "a" * 20_000, "Host: x", ": x", "A" * 70_000),
    *("Origin: \xff", "If-None-Match: *", "Accept-Encoding: " + "gzip," * 3000, "Content-Type: multipart/form-data"),
)
ODD_TARGETS = (
    *(
        "/",
        "*",
        "//",
        "/%",
        "/%00",
        "/results/%2e%2e%2fx",
        "/results/" + "a" * 5000,
        "/restore?" + "model=first&" * 3000,
    ),
    *(
        "/restore?model=%ff&name=%ff%00%0d%0a",
        "/restore?model=first&name=" + "x" * 9000,
        "http://evil.example/",
        "/é",
        "\x7f",
    ),
)


def requests(address: str) -> list[bytes]:
    """Requests of the page, and such with odd methods, targets and headers, with bytes changed in half of them."""
    rng, host = np.random.default_rng(14), urlsplit(address).netloc
    photo = encoded(picture(), "PNG")
    made = []
    for number in range(NUMBER):
        method = rng.choice(["GET", "POST", "POST", "HEAD", "PUT", "OPTIONS", "\0", "PRI"])
        odd_target = ODD_TARGETS[int(rng.integers(len(ODD_TARGETS)))]
        target = odd_target if number % 3 == 0 else rng.choice(["/", "/restore?model=baseline/seed0", "/results/x"])
        headers = [f"Host: {host}", f"Origin: {address}", f"Content-Length: {len(photo)}", "Connection: close"]
        if number % 3 == 1:
            headers[int(rng.integers(1, 4))] = ODD_HEADERS[int(rng.integers(len(ODD_HEADERS)))]
        head = "\r\n".join([f"{method} {target} HTTP/1.1", *headers, "", ""]).encode("latin1", errors="replace")
        content = head + (photo if number % 2 else mutated(photo, number))
        made.append(mutated(content, number) if number % 2 else content)
    return made


def answer(address: str, request: bytes) -> bytes:
    host, _, port = urlsplit(address).netloc.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            return b""


def still_serves(served: Served) -> None:
    status, events = served.post(encoded(picture(), "PNG"), model="baseline/seed0")
    assert status == 200 and "result" in events[-1]


@pytest.mark.timeout(120)
def test_requests_of_any_bytes_do_no_harm(tmp_path: Path) -> None:
    """``serving`` asserts that nothing is said and nothing is left."""
    run_folder(tmp_path / "models" / "baseline" / "seed0", "baseline", paper_diffusion())
    answered = 0
    with serving(tmp_path, "--models", tmp_path / "models", "--memory", "1000MB") as served:
        for request in requests(served.address):
            received = answer(served.address, request)
            assert received[:9] in (b"", b"HTTP/1.1 ") and b"Traceback" not in received, request[:200]
            assert not received.startswith(b"HTTP/1.1 500"), request[:200]
            answered += bool(received)
        still_serves(served)
        status = Path(f"/proc/{served.process.pid}/status").read_text(encoding="utf-8")
        (peak,) = (int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
        assert peak < 1000 and answered > NUMBER / 2, (peak, answered)
