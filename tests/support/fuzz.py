"""Seeded mutators of bytes and of trees, and a watch over what hostile input does: errors, time, memory, files."""

import resource
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from blurdm.core.errors import InputError

SLOWEST = 5.0  # seconds of one input
MOST_GROWTH = 1 << 30  # bytes of address space beyond those before the first input

Rng = np.random.Generator


# --- bytes ---------------------------------------------------------------------------------------------------------


def cut(content: bytearray, place: int, rng: Rng) -> None:
    del content[place:]


def flip_bits(content: bytearray, place: int, rng: Rng) -> None:
    for where in rng.integers(len(content), size=int(rng.integers(1, 30))):
        content[where] ^= 1 << int(rng.integers(8))


def zeros(content: bytearray, place: int, rng: Rng) -> None:
    length = int(rng.integers(1, 200))
    content[place : place + length] = bytes(length)


def large_number(content: bytearray, place: int, rng: Rng) -> None:
    length = int(rng.integers(1, 9))
    content[place : place + length] = b"\xff" * (length - 1) + rng.choice([b"\xff", b"\x7f"])


def repeat(content: bytearray, place: int, rng: Rng) -> None:
    content[place:place] = content[place : place + int(rng.integers(1, 100))] * int(rng.integers(1, 20))


def noise(content: bytearray, place: int, rng: Rng) -> None:
    content[place : place + int(rng.integers(1, 50))] = rng.bytes(int(rng.integers(1, 50)))


DAMAGE = (cut, flip_bits, zeros, large_number)  # keeps what is where, but for the end
MUTATORS = (*DAMAGE, repeat, noise)


def mutated(content: bytes, seed: int, kinds: Iterable[Callable[[bytearray, int, Rng], None]] = MUTATORS) -> bytes:
    """``content`` changed in one way, half of the time near its beginning, where headers are."""
    rng, kinds = np.random.default_rng(seed), tuple(kinds)
    changed = bytearray(content)
    end = len(content) if rng.random() < 0.5 else min(len(content), 400)
    kinds[seed % len(kinds)](changed, int(rng.integers(end)), rng)
    return bytes(changed)


# --- trees of JSON and YAML ----------------------------------------------------------------------------------------


def deep(depth: int = 2000) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**9, 10**30, 10**400, 0.5, -0.0, 1e-320, 1e308, 1e400),
    *(
        float("nan"),
        "",
        "x",
        "1",
        "__class__",
        "../../etc/passwd",
        "nul\0",
        "\ud800",
        "a\nb\x1b[31m",
        "é" * 3000,
        "\u202e",
    ),
    *([], {}, [[]], [1, 2], ["x"] * 100, {"": None}, {"steps": {}}, [1e9] * 9, [None]),
)


def spoilt(tree: Any, rng: Rng) -> Any:
    """A copy of ``tree`` with one value replaced, taken away, doubled or added, anywhere."""
    if isinstance(tree, dict) and tree and rng.random() < 0.8:
        names, copy = list(tree), dict(tree)
        name = names[int(rng.integers(len(names)))]
        action = rng.random()
        if action < 0.7:
            copy[name] = spoilt(copy[name], rng)
        elif action < 0.85:
            del copy[name]
        else:
            copy[str(odd(rng))[:50]] = copy[name]
        return copy
    if isinstance(tree, list) and tree and rng.random() < 0.6:
        place = int(rng.integers(len(tree)))
        return [*tree[:place], spoilt(tree[place], rng), *tree[place + int(rng.integers(2)) :]]
    return odd(rng)


def odd(rng: Rng) -> Any:
    return ODD[int(rng.integers(len(ODD)))]


# --- what an input does --------------------------------------------------------------------------------------------


@dataclass
class Report:
    """``inputs``, of which so many were ``accepted``; ``failures``: number of the input and what it did."""

    inputs: int = 0
    accepted: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class TooSlow(BaseException):
    """An input took longer than SLOWEST."""


def watch(inputs: Iterable[Any], use: Callable[[Any], object]) -> Report:
    """``use`` each input: it must be accepted, or refused by an InputError of one printable line, within SLOWEST."""
    report, first = Report(), time.process_time()
    signal.signal(signal.SIGVTALRM, _too_slow)
    for number, value in enumerate(inputs):
        report.inputs += 1
        started = time.process_time()
        signal.setitimer(signal.ITIMER_VIRTUAL, SLOWEST)
        try:
            use(value)
            report.accepted += 1
        except InputError as error:
            if not str(error).isprintable() or len(str(error)) > 3000:
                report.failures.append(f"{number}: not one line: {str(error)[:200]!r}")
        except BaseException as error:
            frame = error.__traceback__
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            place = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else ""
            report.failures.append(f"{number}: {type(error).__name__} {place}: {str(error)[:200]!r}")
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        report.slowest = max(report.slowest, time.process_time() - started)
    report.seconds = time.process_time() - first
    return report


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def limit_memory() -> None:
    """No more than MOST_GROWTH of memory for this process from now on: beyond it, allocating fails."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    most = pages * resource.getpagesize() + MOST_GROWTH
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
