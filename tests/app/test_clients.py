"""``blurdm app`` and clients that are slow, leave, or speak bad HTTP: everyone else is served, and nothing is said."""

import http.client
import io
import json
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from blurdm.app.connection import MOST
from tests.support.app import Served, serving
from tests.support.photos import encoded, picture, run_folder
from tests.support.sections import paper_diffusion

LIMIT = 4.0  # seconds of a connection, here
MODEL, QUERY = "small/one", "model=small/one"
PHOTO = encoded(picture(), "PNG")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    run_folder(folder / "small" / "one", "baseline", paper_diffusion())
    return folder


@pytest.fixture(scope="module")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("app"), "--models", models, "--memory", "1GB", seconds=LIMIT) as app:
        yield app


def restores(served: Served, content: bytes = PHOTO) -> str:
    """The address of the result of a photo, restored now, or as soon as one that was left is."""
    end = time.monotonic() + 30
    while (answer := served.post(content, model=MODEL))[0] == 503 and time.monotonic() < end:
        time.sleep(0.05)
    status, events = answer
    assert status == 200 and "result" in events[-1], (status, events)
    return re.findall('href="([^"]+)"', events[-1]["result"])[0]


def test_slow_clients_hold_up_nobody_and_lose_their_connection(served: Served) -> None:
    large = restores(served, encoded(picture(1500, 1500), "BMP"))
    with ExitStack() as stack:
        slow = [stack.enter_context(served.connect(served.request(QUERY, 10_000))) for _ in range(40)]
        slow += [stack.enter_context(served.connect(b"GET / HTTP/1.1\r\nHost:")) for _ in range(40)]
        slow += [stack.enter_context(served.connect()) for _ in range(40)]
        unread = served.connect(f"GET /{large} HTTP/1.1\r\nHost: {served.host}\r\n\r\n".encode())
        stack.enter_context(unread)
        started, ended = time.monotonic(), 0
        while ended < len(slow) and time.monotonic() - started < 3 * LIMIT:
            restores(served)
            ended = sum(not goes_on(client) for client in slow)
        assert ended == len(slow) and time.monotonic() - started > LIMIT - 1
        assert received(unread) < 1500 * 1500 * 3, "what was on its way, and no more"


def received(client: socket.socket) -> int:
    """The bytes that still come."""
    count = 0
    with suppress(ConnectionError):
        while part := client.recv(1 << 16):
            count += len(part)
    return count


def goes_on(client: socket.socket) -> bool:
    """Whether the server still listens to this client, which sends one more byte."""
    try:
        client.sendall(b"x")
        client.setblocking(False)
        return bool(client.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        client.setblocking(True)


def test_of_very_many_connections_the_oldest_end(served: Served) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(served.connect()) for _ in range(MOST + 100)]
        restores(served)
        assert not goes_on(clients[0]) or not goes_on(clients[0])
        assert goes_on(clients[-1])


def test_an_answer_that_is_not_read_frees_the_worker(served: Served) -> None:
    with closing(served.connect(served.request(QUERY, len(PHOTO)) + PHOTO)):
        restores(served)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8, 0.99, 1.0])
@pytest.mark.parametrize("abrupt", [False, True])
def test_a_browser_leaves_at_any_moment(served: Served, share: float, abrupt: bool) -> None:
    whole = served.request(QUERY, len(PHOTO)) + PHOTO
    client = served.connect(whole[: int(share * len(whole))])
    if abrupt:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset in place of an end
    client.close()
    restores(served)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (["Content-Length: -1"], PHOTO, 400),
        (["Content-Length: 1e3"], PHOTO, 400),
        (["Content-Length: " + "9" * 30], PHOTO, 400),
        (["Content-Length: 5", "Content-Length: 6"], PHOTO, 400),
        (["Content-Length: 5", "Transfer-Encoding: gzip"], PHOTO, 400),
        (["Content-Length: 5"], PHOTO, 200),  # and the photo is damaged
        (["Transfer-Encoding: chunked"], b"%x\r\n%s\r\n0\r\n\r\n" % (len(PHOTO), PHOTO), 200),
        (["Transfer-Encoding: chunked"], b"-5\r\nabcde\r\n0\r\n\r\n", None),
        (["Transfer-Encoding: chunked"], b"ffffffffffffffffffff\r\n" + PHOTO, None),
        (["X: " + "a" * 200_000], PHOTO, 400),
    ],
)
def test_bad_requests_are_answered_or_dropped(
    served: Served, headers: list[str], body: bytes, status: int | None
) -> None:
    with closing(served.connect()) as client:
        client.settimeout(3 * LIMIT)
        try:
            client.sendall(served.request(QUERY, None, *headers) + body)
            answer = client.recv(12)
        except ConnectionError:
            answer = b""
    if status is not None:
        assert answer in (f"HTTP/1.1 {status}".encode(), b"")
    restores(served)


@pytest.mark.parametrize(
    "name",
    [
        'a"b.png',
        "a\r\nSet-Cookie: x=1\r\n.png",
        "../../etc/passwd",
        "..",
        "",
        "C:\\x\\y.png",
        "\u202egnp.exe",
        "фото 照片.png",
        "x" * 5000,
        "%00%0d%0a.png",
        ";filename=evil.exe",
    ],
)
def test_no_name_gets_out_of_its_header(served: Served, name: str) -> None:
    status, events = served.post(PHOTO, name, MODEL)
    (address,) = re.findall('href="([^"]+)"', events[-1]["result"])
    _, headers, content = served.get(f"/{address}")
    (written,) = re.findall("^attachment; filename\\*=utf-8''([A-Za-z0-9._%~-]+)$", headers["content-disposition"])
    saved = unquote(written)
    assert status == 200 and "set-cookie" not in headers and Image.open(io.BytesIO(content)).size == (37, 31)
    assert saved.isprintable() and not set("/\\") & set(saved.replace("\\u202e", "").replace("\\r\\n", ""))
    assert saved.endswith(".png") and len(saved) < 100


def test_a_model_that_is_named_often_restores_once(served: Served) -> None:
    with closing(http.client.HTTPConnection(served.host, timeout=60)) as connection:
        query = "name=a&name=b.png&" + "&".join([QUERY] * 3000)
        connection.request("POST", f"/restore?{query}", PHOTO, {"Origin": served.address})
        events = [json.loads(line) for line in connection.getresponse().read().splitlines()]
    assert sum("result" in event for event in events) == 1


def test_a_hundred_requests_at_once(served: Served) -> None:
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: served.post(PHOTO, model=MODEL), range(100)))
    statuses = [status for status, _ in answers]
    assert set(statuses) <= {200, 503} and 200 in statuses
    assert all("result" in events[-1] or "another photo" in events[-1]["error"] for _, events in answers)
    restores(served)


def test_what_is_swept_away_from_its_folder_is_not_missed(served: Served) -> None:
    before = restores(served)
    assert list(served.temporary.iterdir()) == []
    shutil.rmtree(served.temporary)
    assert served.get(f"/{before}")[0] == 200
    after = restores(served)
    contents = [served.get(f"/{address}")[2] for address in (before, after)]
    first, second = (np.array(Image.open(io.BytesIO(content))) for content in contents)
    assert np.array_equal(first, second)


def test_a_large_file_is_one_line_and_control_c_ends_at_once(models: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "--models", models, "--memory", "1GB") as app:
        status, events = app.post(b"\xff\xd8" + bytes(250 << 20), "large.jpg", MODEL)
        assert status == 200 and events[-1]["error"].startswith("large.jpg: the file takes 500 MB"), events
        restores(app)
        assert app.peak_mb() < 1024
        photo = encoded(picture(2500, 2500), "JPEG")
        with closing(app.connect(app.request(QUERY, len(photo)) + photo)) as client:
            client.recv(1000)
            started = time.monotonic()
            app.process.send_signal(signal.SIGINT)
            assert app.process.wait(10) == 0
            assert time.monotonic() - started < 4
