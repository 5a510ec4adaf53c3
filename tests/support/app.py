"""A running ``blurdm app``, and what a browser or another client asks of it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tests.support.tiny import REPOSITORY

# the command, with another time limit of connections
COMMAND = "import sys, blurdm.app.connection as c; c.SECONDS = float(sys.argv.pop(1))\n"
COMMAND += "from blurdm.cli.main import main; sys.exit(main())"


@dataclass(frozen=True)
class Served:
    """A running ``blurdm app``: its address, its process, and the folder where its temporary files are."""

    address: str
    process: "subprocess.Popen[str]"
    temporary: Path

    @property
    def host(self) -> str:
        return urlsplit(self.address).netloc

    def post(self, content: bytes, name: str = "photo", model: str = "first", **headers: str) -> tuple[int, list[Any]]:
        """Status and events of a photo that its page would send."""
        path = f"/restore?name={quote(name, errors='surrogateescape')}&model={quote(model)}"
        with closing(http.client.HTTPConnection(self.host, timeout=60)) as connection:
            connection.request("POST", path, content, {"Origin": self.address} | headers)
            answer = connection.getresponse()
            return answer.status, [json.loads(line) for line in answer.read().decode().splitlines()]

    def get(self, path: str, host: str | None = None) -> tuple[int, Message, bytes]:
        """Status, headers and content of what is at ``path``; ``host``: the name that the browser believes this has."""
        with closing(http.client.HTTPConnection(self.host, timeout=60)) as connection:
            connection.request("GET", path, headers={"Host": host} if host else {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def connect(self, sent: bytes = b"") -> socket.socket:
        """A connection of a client that speaks no HTTP of its own, after ``sent``."""
        host, port = self.host.split(":")
        connection = socket.create_connection((host, int(port)), timeout=60)
        connection.sendall(sent)
        return connection

    def request(self, query: str, length: int | None, *headers: str) -> bytes:
        """The head of a request that restores a photo of ``length`` bytes."""
        lines = [f"POST /restore?{query} HTTP/1.1", f"Host: {self.host}", f"Origin: {self.address}", *headers]
        lines += [] if length is None else [f"Content-Length: {length}"]
        return "\r\n".join([*lines, "", ""]).encode()

    def seconds(self) -> float:
        """Of a processor, that the server took so far."""
        times = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
        return sum(int(ticks) for ticks in times) / os.sysconf("SC_CLK_TCK")

    def peak_mb(self) -> float:
        """The most memory that it has had."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

    def kept(self) -> int:
        """The number of its files on disk, which have no name."""
        files = 0
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed
                files += os.readlink(link).startswith(str(self.temporary))
        return files


@contextmanager
def serving(folder: Path, *options: object, seconds: float = 60) -> Iterator[Served]:
    """The command as a user starts it, in an empty folder; ended by Ctrl-C, it must leave nothing and say nothing.

    ``seconds``: the time limit of its connections.
    """
    temporary, here = folder / "tmp", folder / "here"
    temporary.mkdir()
    here.mkdir()
    command = [sys.executable, "-c", COMMAND, str(seconds), "app", *map(str, options)]
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=here, env=environment, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().split(" ")[0]
    assert address.startswith("http://127.0.0.1:"), process.communicate()
    try:
        yield Served(address, process, temporary)
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", ""), err[-3000:]
    assert list(temporary.iterdir()) == [] and list(here.iterdir()) == []
