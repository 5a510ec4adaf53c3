"""A run: one stage with one config and its input runs. It *is* a folder named by its key. No torch here."""

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
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from blurdm.config import Config, Section
from blurdm.errors import InputError, StopRequested
from blurdm.identity import canonical_json, identity, unsaid

KEY_LENGTH = 16
HEARTBEAT = "progress.json"
LOCK_POLL_SECONDS = 0.1
NO_SPACE = "no space left to write it; free some and start again, what was saved is kept"


@dataclass(frozen=True)
class Progress:
    """What a stage says of itself while it runs; ``total`` in the same unit as ``step``."""

    step: int
    total: int
    unit: str = "step"
    numbers: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


def ignore_progress(progress: Progress) -> None:
    """For callers that do not watch."""


Tell = Callable[[str], None]
"""Hears what somebody who watches should know."""


def say_nothing(text: str) -> None:
    """For callers that do not watch."""


def never() -> bool:
    return False


@dataclass(frozen=True)
class Resources:
    """Where and how a stage runs. Never part of a key: none may change a result (CPU: for a given ``threads``).

    A checkpoint is written every ``checkpoint_seconds``, or less often where that would take a hundredth of the time.
    ``ranks`` processes train together, each on a GPU of its own, or on ``threads`` CPU threads of its own: the same
    steps as one takes, up to rounding (and but for dropout, whose masks each rank draws for itself).
    """

    device: str = "cpu"
    threads: int = 1
    checkpoint_seconds: float = 15.0
    cache: Path | None = None
    stop: Callable[[], bool] = never
    ranks: int = 1


@dataclass(frozen=True)
class Run:
    """``inputs`` are earlier runs by name, or the digest of raw data. Of ``config``, it sees what ``reads`` names."""

    stage: str
    version: int
    config: Config
    seed: int | None
    reads: tuple[str, ...]
    inputs: Mapping[str, "Run | str"]

    @property
    def sections(self) -> "Sections":
        return Sections(self)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What the key is made of, and what ``config.json`` holds: fully resolved, less what is plain."""
        read = {name: identity(getattr(self.sections, name)) for name in self.reads}
        sections = {name: value for name, value in read.items() if value != {}}
        inputs = {name: i.key if isinstance(i, Run) else i for name, i in self.inputs.items()}
        return {"stage": self.stage, "version": self.version, "sections": sections, "inputs": inputs}

    @cached_property
    def key(self) -> str:
        """The shortened sha256 of the canonical JSON of ``description``."""
        return self.hashed(section_text)

    def hashed(self, text: Callable[[Any], str]) -> str:
        """The key, made from the ``text`` of each section; a plan of many runs asks for that once per section."""
        values = [(name, self.seed if name == "seed" else getattr(self.config, name)) for name in sorted(self.reads)]
        texts = [(name, text(value)) for name, value in values]
        sections = ",".join([f'"{name}":{made}' for name, made in texts if made != "{}"])
        needed = [(name, f'"{i.key}"' if isinstance(i, Run) else canonical_json(i)) for name, i in self.inputs.items()]
        inputs = ",".join([f'"{name}":{value}' for name, value in sorted(needed)])
        stage = f'"stage":"{self.stage}","version":{self.version}'
        described = f'{{"inputs":{{{inputs}}},"sections":{{{sections}}},{stage}}}'
        return hashlib.sha256(described.encode()).hexdigest()[:KEY_LENGTH]

    def folder(self, root: Path) -> Path:
        return root / self.stage / self.key

    def chain(self) -> list["Run"]:
        """This run and every run it needs, inputs first, each once."""
        ordered: dict[str, Run] = {}
        for run in self.inputs.values():
            if isinstance(run, Run):
                ordered.update({r.key: r for r in run.chain()})
        ordered[self.key] = self
        return list(ordered.values())


class Sections:
    """The view of a config that a stage gets: the sections it declared, and no others."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getattr__(self, name: str) -> Any:
        run = self.__dict__["_run"]
        if name not in run.reads:
            raise AttributeError(f"stage '{run.stage}' did not declare that it reads '{name}'")
        return run.seed if name == "seed" else getattr(run.config, name)


def section_text(section: Any) -> str:
    """The canonical JSON of what of ``section`` takes part in a key."""
    return canonical_json(identity(section))


def stored_section(folder: Path, name: str) -> Any:
    """Section ``name`` of the run in ``folder``, typed, from its own ``config.json``: an artefact explains itself.

    Places are not stored, and empty.
    """
    model: Any = Config.model_fields[name].annotation
    value = read_json(folder / "config.json")["sections"][name]
    is_section = isinstance(model, type) and issubclass(model, Section)
    return model.model_validate_json(json.dumps(unsaid(model) | value)) if is_section else value


def finished(folder: Path) -> dict[str, Any] | None:
    """The result of the run in ``folder``, or None: ``result.json``, written last and by rename, *is* "finished"."""
    path = folder / "result.json"
    return read_json(path) if path.is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """InputError names a file that is missing or not JSON."""
    try:
        value = json.loads(path.read_text())
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


def beat(folder: Path, progress: Progress) -> None:
    """Leave in ``folder`` how far its run has got, for whoever looks on; losing it, to a full disk say, is no loss."""
    origin = {"time": time.time(), "host": platform.node(), "pid": os.getpid()}
    temporary = folder / f".{HEARTBEAT}.{os.getpid()}.tmp"
    try:
        temporary.write_text(json.dumps(asdict(progress) | origin))
        os.replace(temporary, folder / HEARTBEAT)
    except OSError:
        temporary.unlink(missing_ok=True)


def heartbeat(folder: Path) -> dict[str, Any] | None:
    """What the process at work in ``folder`` last said: the fields of Progress, ``time`` (s, epoch), host and pid.

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
    folder: Path, on_wait: Callable[[str], None] = lambda owner: None, stop: Callable[[], bool] = never
) -> Iterator[None]:
    """Hold the run folder alone; waits for another process that has it, after telling ``on_wait`` whose it is.

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
    told = False
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read() or "another process"
        if not told:
            told = True
            on_wait(owner)
        if stop():
            raise StopRequested(f"stopped while waiting for {owner}")
        time.sleep(LOCK_POLL_SECONDS)


def provenance(resources: Resources) -> dict[str, Any]:
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
