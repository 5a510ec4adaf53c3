"""Which processes of this machine have started which others."""

from contextlib import suppress
from pathlib import Path


def children() -> dict[int, list[int]]:
    """The processes that each process has started, and that are still there."""
    found: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            found.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    return found


def descendants(pid: int) -> set[int]:
    known, found, ahead = children(), set[int](), [pid]
    while ahead:
        found |= (more := set(known.get(ahead.pop(), [])))
        ahead += more
    return found


def named(prefix: str, below: int) -> list[int]:
    """Which descendants of process ``below`` have a command line that begins with ``prefix``."""
    matching = []
    for pid in descendants(below):
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(prefix.encode()):
                matching.append(pid)
    return matching
