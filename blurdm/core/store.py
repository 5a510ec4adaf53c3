"""Atomic writes, and the files of run folders: lock, heartbeat, provenance."""

import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from blurdm.core.errors import InputError, StopRequested
from blurdm.core.progress import Progress
from blurdm.core.records import TYPES, Record, check_types

if TYPE_CHECKING:
    from blurdm.core.runs import Resources

HEARTBEAT = "progress.json"
LOCK_POLL_SECONDS = 0.1
MOST_JSON = 64 << 20  # bytes
NO_SPACE = "no space left to write it; free some and start again, what was saved is kept"


def finished(folder: Path) -> dict[str, Any] | None:
    """The result of the run in ``folder``, or None: ``result.json``, written last and by rename, *is* "finished"."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    result = read_json(path)
    result["key"]  # or an InputError: what is no result does not count as finished
    return result


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; InputError names a file that is missing, no JSON, or lacks an entry that is read."""
    value = parse_json(read_text(path), str(path))
    check_types(path, value)
    return value


def read_text(path: Path) -> str:
    """The text of a JSON file; InputError if there is no such file, it cannot be read, or it is too large."""
    if not path.is_file():
        raise InputError(f"{path}: missing")
    try:
        if path.stat().st_size > MOST_JSON:
            raise InputError(f"{path}: larger than {MOST_JSON >> 20} MB; delete it to have it made again")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete it to have it made again") from None


def parse_json(text: str, source: str) -> dict[str, Any]:
    """The JSON object in ``text``; InputError names its ``source``, or an entry that is read and not there."""

    def record(values: dict[str, Any]) -> Record:
        return Record(values, source)

    try:
        value = json.loads(text, object_hook=record)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: not valid JSON ({error}); delete it to have it made again") from None
    if not isinstance(value, Record):
        raise InputError(f"{source}: should hold a JSON object, not a {type(value).__name__}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write by temporary file, fsync and rename: readers see the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and is_full_disk(error):
            raise InputError(f"{path}: {NO_SPACE}") from None
        raise


def write_heartbeat(folder: Path, progress: Progress) -> None:
    """Write the progress of the run in ``folder`` for other processes. A full disk is ignored."""
    origin = {"time": time.time(), "host": platform.node(), "pid": os.getpid()}
    temporary = folder / f".{HEARTBEAT}.{os.getpid()}.tmp"
    try:
        temporary.write_text(json.dumps(asdict(progress) | origin))
        os.replace(temporary, folder / HEARTBEAT)
    except OSError:
        temporary.unlink(missing_ok=True)


def heartbeat(folder: Path) -> dict[str, Any] | None:
    """The latest heartbeat in ``folder``: the fields of Progress, ``time`` (s, epoch), host and pid.

    None if it has not begun, or has ended in any way but by being killed: what that leaves is told by its ``time``.
    """
    try:
        beat = read_json(folder / HEARTBEAT)
        return beat if all(beat[name] is not None for name in TYPES[HEARTBEAT]) else None
    except InputError:
        return None


def is_full_disk(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(
    folder: Path, on_wait: Callable[[str], None] = lambda owner: None, stop: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Lock the run folder; waits for another process that holds it, after calling ``on_wait`` with its name.

    The operating system frees the lock when its holder dies, however it dies. StopRequested once ``stop`` says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as file:
        _acquire(file, on_wait, stop)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def _acquire(file: IO[str], on_wait: Callable[[str], None], stop: Callable[[], bool]) -> None:
    notified = False
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read() or "another process"
        if not notified:
            notified = True
            on_wait(owner)
        if stop():
            raise StopRequested(f"stopped while waiting for {owner}")
        time.sleep(LOCK_POLL_SECONDS)


def provenance(resources: "Resources") -> dict[str, Any]:
    """Where a result came from; recorded beside it, never hashed."""
    return {
        "git_revision": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "packages": {name: importlib.metadata.version(name) for name in ("torch", "numpy", "pydantic", "safetensors")},
        "python": platform.python_version(),
        "hardware": {
            "machine": platform.machine(),
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "host": platform.node(),
        },
        "threads": resources.threads,
        "ranks": resources.ranks,
        "device": resources.device,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=10, cwd=Path(__file__).parent
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
