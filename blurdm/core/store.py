"""Atomic writes that touch no file of somebody else, and files of run folders: lock, heartbeat, provenance."""

import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from blurdm.core.errors import InputError, StopRequested
from blurdm.core.progress import Progress
from blurdm.core.records import TYPES, JsonObject, check_types

if TYPE_CHECKING:
    from blurdm.core.runs import Resources

HEARTBEAT = "progress.json"
LIVE = "live.jsonl"  # grows while a stage computes: numbers and load, for whoever watches
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

    def record(values: dict[str, Any]) -> JsonObject:
        return JsonObject(values, source)

    try:
        value = json.loads(text, object_hook=record)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: not valid JSON ({error}); delete it to have it made again") from None
    if not isinstance(value, JsonObject):
        raise InputError(f"{source}: should hold a JSON object, not a {type(value).__name__}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def write_bytes(
    path: Path,
    content: bytes | memoryview,
    *,
    mode: int = 0o666,
    below: Path | None = None,
    new: bool = False,
    durable: bool = True,
) -> None:
    """Write by a temporary file, fsync and rename: readers see the old content or the new, never a part.

    Replaces a file and nothing else; with ``new`` nothing at all, also not what appears meanwhile. Makes missing
    folders; none below ``below`` may be a link. ``mode``: the widest permissions. InputError, and nothing is changed.
    """
    temporary = f".{secrets.token_hex(8)}.tmp"
    with _in_one_line(path), _opened(path.parent, below) as folder:
        if not new:
            _require_file(path, folder)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                if durable:
                    os.fsync(descriptor)
            if new:
                _link(temporary, path.name, folder)
            else:
                os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)


def append_line(path: Path, line: str, *, mode: int = 0o666, below: Path | None = None, durable: bool = True) -> None:
    """Append ``line`` to a file, after a half-written line too, and fsync; arguments and errors as in ``write_bytes``.

    Who cannot read by ``mode`` can no longer read the file, unless it is its owner.
    """
    mode |= 0o600
    descriptor = open_file(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, mode, below)
    with _in_one_line(path), open(descriptor, "r+b", buffering=0) as file:
        status = os.fstat(descriptor)
        if status.st_mode & 0o444 & ~mode:
            with suppress(OSError):  # a file of somebody else, or a disk without permissions
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & mode)
        torn = status.st_size > 0 and os.pread(descriptor, 1, status.st_size - 1) != b"\n"
        content = b"\n" * torn + line.encode() + b"\n"
        if file.write(content) != len(content):
            raise OSError(errno.ENOSPC, NO_SPACE)
        if durable:
            os.fsync(descriptor)


def open_file(path: Path, flags: int, mode: int = 0o666, below: Path | None = None) -> int:
    """Descriptor of a file that is changed in place; InputError if it is anything else, or has a second name."""
    with _in_one_line(path), _opened(path.parent, below) as folder:
        _require_file(path, folder)
        descriptor = os.open(path.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, mode, dir_fd=folder)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
            return descriptor
        os.close(descriptor)
        raise InputError(f"{path}: is a hard link, so another file would be changed too; put a copy in its place")


@contextmanager
def _in_one_line(path: Path) -> Iterator[None]:
    """An error of the system becomes an InputError that names ``path``."""
    try:
        yield
    except OSError as error:
        reason = NO_SPACE if is_full_disk(error) else f"cannot be written ({error.strerror})"
        raise InputError(f"{path}: {reason}") from None


@contextmanager
def _opened(folder: Path, below: Path | None) -> Iterator[int]:
    """Descriptor of ``folder``, which is made if missing; InputError if a folder below ``below`` is a link."""
    place = below or folder
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_PATH | os.O_DIRECTORY)
    try:
        for name in folder.relative_to(place).parts:
            place /= name
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=descriptor)
            try:
                inner = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            except NotADirectoryError:
                raise InputError(f"{place}: is a link or a file; should be a folder, or not there") from None
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _require_file(path: Path, folder: int) -> None:
    """InputError if what ``folder`` holds under the name of ``path`` is no file."""
    with suppress(FileNotFoundError):
        kind = os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode
        if not stat.S_ISREG(kind):
            word = "link" if stat.S_ISLNK(kind) else "folder" if stat.S_ISDIR(kind) else "pipe or device"
            raise InputError(f"{path}: is a {word}; should be a file, or not there")


def _link(temporary: str, name: str, folder: int) -> None:
    """Give ``temporary`` also the name ``name``; FileExistsError if anything has it."""
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as that of a memory card
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder))
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def write_heartbeat(folder: Path, progress: Progress) -> None:
    """Write the progress of the run in ``folder`` for other processes. A full disk or a missing folder is ignored."""
    if not folder.is_dir():
        return
    origin = {"time": time.time(), "host": platform.node(), "pid": os.getpid()}
    with suppress(InputError):
        write_bytes(folder / HEARTBEAT, json.dumps(asdict(progress) | origin).encode(), durable=False)


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
    with open(open_file(folder / "lock", os.O_RDWR | os.O_APPEND | os.O_CREAT), "a+", encoding="utf-8") as file:
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
