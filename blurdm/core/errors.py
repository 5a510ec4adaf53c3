"""Errors that are one line for a person: wrong input, a stop on request, and what the machine refuses."""

import os
import re

NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|[Ss]torage size calculation overflow")
LONGEST = 2000  # characters


class InputError(Exception):
    """Names the file, key or value, what is wrong with it, and what would be right: one printable line, whatever the
    file held that it quotes.
    """

    def __str__(self) -> str:
        line = super().__str__()
        return one_line(line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}")


class StopRequested(Exception):
    """A stage was asked to stop (SIGTERM, SIGUSR1/2, Ctrl-C), saved its state, and will continue when started again."""


class RankEnded(Exception):
    """One of the processes that computed a run together died; the run continues when it is started again."""


def one_line(text: str) -> str:
    """``text`` with spaces for line breaks and escapes for other characters that do not print."""
    return printable(" ".join(text.splitlines()))


def printable(text: str) -> str:
    """``text`` with escapes for all characters that do not print."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def machine_error(error: BaseException) -> str | None:
    """One line on what the machine refused: a file, memory, a missing package; None for an error of the program."""
    if isinstance(error, OSError):
        if "AF_UNIX path" in str(error):  # of the sockets between processes, which are temporary files
            place = os.environ.get("TMPDIR", "the folder of temporary files")
            return f"TMPDIR: {place} is too long a path for sockets; should have 60 characters at most, such as /tmp"
        name = error.filename2 or error.filename
        return f"{os.fsdecode(name)}: {error.strerror}" if isinstance(name, str | bytes) else str(error)
    if isinstance(error, ModuleNotFoundError):
        package = str(error.name).partition(".")[0]
        return f"needs the package {package}: pip install 'blurdm[all]'" if package != "blurdm" else None
    # PyTorch reports memory that a CPU lacks as a RuntimeError, and a GPU's as a subclass of it.
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))):
        return "not enough memory; smaller sizes (crop, batch, width) or fewer processes at a time need less"
    return None
