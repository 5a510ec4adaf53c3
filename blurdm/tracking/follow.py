"""``blurdm track follow``: MLflow shows what is trained while it is trained, seen from outside, from run folders alone.

The follower is a process of its own. Training never waits for it, nor for a server; what a server missed while it was
slow or away is sent when it is back.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blurdm.core.addresses import public_uri
from blurdm.core.errors import InputError
from blurdm.core.ledger import read_ledger, runs_root
from blurdm.core.progress import Notify
from blurdm.core.store import locked
from blurdm.tracking.client import open_experiment, quiet
from blurdm.tracking.folders import Folders
from blurdm.tracking.item import Item
from blurdm.tracking.mirror import Mirror, SyncReport
from blurdm.tracking.pictures import demo_digests
from blurdm.tracking.send import error_line
from blurdm.tracking.sync import begun, grid_folders, grid_items

EVERY_SECONDS = 5.0
PATIENCE_SECONDS = 60.0  # the longest pause after a failure, which doubles from EVERY_SECONDS
LAST_SECONDS = 30.0  # what the last look may take once the followed command has ended
NICE = 10  # of a follower that a command has started: training comes first


@dataclass
class Source:
    """One experiment and what it is made of. ``now``: its items that began, or ended after the follower did."""

    experiment: str
    grid: str | None
    root: Path
    look: Callable[[], tuple[list[Item], list[Path]]]
    mirror: Mirror | None = None
    sent: dict[str, tuple[str, str]] = field(default_factory=dict)

    def changed(self) -> tuple[list[Item], list[Path]]:
        """The items that have changed since they were last sent, with their parents, and all run folders."""
        items, folders = self.look()
        new = [item for item in items if self.sent.get(item.identity) != (item.content, item.status)]
        parents = {item.parent for item in new}
        return [item for item in items if item in new or item.identity in parents], folders


def chain_source(runs: Path, experiment: str, repo: Path, since: float, skip: Callable[[], Collection[str]]) -> Source:
    """Trainings below ``runs`` that are not finished or ended after ``since`` (s, epoch), but for keys in ``skip``."""
    found = Folders(runs, "blurdm run", demo_digests(repo), {"blurdm.preset": "params.yaml"})

    def look() -> tuple[list[Item], list[Path]]:
        others = skip()
        folders = [f for f in begun(runs) if f.name not in others and _is_recent(f, since)]
        return [found.item(folder, None) for folder in folders], folders

    return Source(experiment, None, runs, look)


def grid_source(ledger: Path, repo: Path) -> Source:
    """Rows and trainings of a grid."""
    root, name, demo = runs_root(ledger), read_ledger(ledger).grid, demo_digests(repo)

    def look() -> tuple[list[Item], list[Path]]:
        known = read_ledger(ledger)
        items = grid_items(known, grid_folders(known, root, demo))
        return items, [root / stage / key for row in known.rows for stage, key in row.addresses]

    return Source(name, name, root, look)


def _is_recent(folder: Path, since: float) -> bool:
    result = folder / "result.json"
    return not result.is_file() or result.stat().st_mtime >= since


class Follower:
    """Brings MLflow at ``uri`` up to date with ``sources``, again and again. ``notify`` is told when that fails."""

    def __init__(self, uri: str, repo: Path, sources: Callable[[], Sequence[Source]], notify: Notify) -> None:
        self.uri, self.repo, self.notify = uri, repo, notify
        self.sources = sources
        self.stack = ExitStack()
        self.trouble = ""

    def follow(self, ended: threading.Event, every: float = EVERY_SECONDS) -> None:
        """Look ``every`` so many seconds until ``ended``, and once more then."""
        pause = every
        with self.stack:
            while True:
                is_last = ended.is_set()
                trouble = self.look()
                if trouble != self.trouble:
                    self.notify(trouble or f"MLflow {public_uri(self.uri)}: there again, and up to date")
                self.trouble = trouble
                if is_last:
                    return
                pause = min(2 * pause, PATIENCE_SECONDS) if trouble else every
                ended.wait(pause)

    def look(self) -> str:
        """Send what has changed; returns what went wrong, in one line, or nothing."""
        try:
            with quiet():
                for source in self.sources():
                    items, folders = source.changed()
                    if items:
                        self._send(source, items, folders)
        except Exception as error:  # of any kind: it depends on the server, and on files that are written meanwhile
            self._forget()
            return f"MLflow {public_uri(self.uri)}: {error_line(error, self.uri)}; tried again"
        return ""

    def _send(self, source: Source, items: list[Item], folders: list[Path]) -> None:
        report = SyncReport()
        with locked(source.root / ".mlflow"):
            if source.mirror is None:
                opened = open_experiment(self.uri, source.experiment, self.repo)
                client, number = self.stack.enter_context(opened)
                source.mirror = Mirror(self.uri, client, number, source.grid, report)
            source.mirror.report = report
            source.mirror.send(items, folders)
        done = {*report.sent, *report.already}
        source.sent |= {item.identity: (item.content, item.status) for item in items if item.identity in done}
        if report.failed:
            raise InputError(report.failed[0])

    def _forget(self) -> None:
        """Open the server anew at the next look, for it may be another one by then."""
        for source in self.sources():
            source.mirror = None
        self.stack.close()


def ends_with_input() -> threading.Event:
    """Set once the process at the other end of standard input has ended, in whatever way; this one goes soon after."""
    ended = threading.Event()

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        ended.set()
        time.sleep(LAST_SECONDS)
        os._exit(0)  # a server that does not answer holds up nobody

    threading.Thread(target=wait, daemon=True).start()
    return ended


@contextmanager
def ends_with_signals() -> Iterator[threading.Event]:
    """Set by Ctrl-C or SIGTERM; a second one ends the process at once."""
    ended = threading.Event()

    def stop(number: int, frame: object) -> None:
        if ended.is_set():
            os._exit(128 + number)
        ended.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
