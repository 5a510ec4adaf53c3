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

if TYPE_CHECKING:
    from blurdm.core.runs import Resources

HEARTBEAT = "progress.json"
LOCK_POLL_SECONDS = 0.1
NO_SPACE = "no space left to write it; free some and start again, what was saved is kept"


def finished(folder: Path) -> dict[str, Any] | None:
    """The result of the run in ``folder``, or None: ``result.json``, written last and by rename, *is* "finished"."""
    path = folder / "result.json"
    return read_json(path) if path.is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """InputError names a file that is missing or not JSON."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete it to have it made again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: should hold a JSON object, not a {type(value).__name__}")
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
        temporary.write_text(json.dumps(asdict(progress) | origin), encoding="utf-8")
        os.replace(temporary, folder / HEARTBEAT)
    except OSError:
        temporary.unlink(missing_ok=True)


def heartbeat(folder: Path) -> dict[str, Any] | None:
    """The latest heartbeat in ``folder``: the fields of Progress, ``time`` (s, epoch), host and pid.

    None if it has not begun, or has ended in any way but by being killed: what that leaves is told by its ``time``.
    """
    try:
        return read_json(folder / HEARTBEAT)
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
    with open(folder / "lock", "a+", encoding="utf-8") as file:
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
    """Where a result came from; recorded beside it, never hashed. Of a copy outside of Git, the revision is None."""
    # Git finds a repository above this folder too, which may be somebody else's.
    is_tracked = _git("ls-files", "--error-unmatch", __file__) is not None
    return {
        "git_revision": _git("rev-parse", "HEAD") if is_tracked else None,
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")) if is_tracked else None,
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
            ["git", *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            cwd=Path(__file__).parent,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
