"""Work that is started ahead of its turn, and the threads that do it beside the device."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Started = TypeVar("Started")

MOST_HELPERS = 16  # more decode no faster than one disk and one Python hand out


def ahead(items: Iterable[Item], start: Callable[[Item], Started], most: int) -> Iterator[tuple[Item, Started]]:
    """Each of ``items`` with what ``start`` returns of it, which is called for the ``most`` items after it too."""
    waiting: deque[tuple[Item, Started]] = deque()
    for item in items:
        waiting.append((item, start(item)))
        if len(waiting) > most:
            yield waiting.popleft()
    yield from waiting


def neighbours(items: Iterable[Item], alike: Callable[[Item], object], most: int) -> Iterator[list[Item]]:
    """``items`` in groups of at most ``most`` that follow each other and of which ``alike`` says the same."""
    group: list[Item] = []
    for item in items:
        if group and (len(group) == most or alike(item) != alike(group[0])):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def helpers(device: str, threads: int) -> int:
    """Threads for what is done beside ``device``: on a CPU ``threads``, as it computes there; beside a GPU, the cores
    that this process may use, MOST_HELPERS at most.
    """
    if not device.startswith("cuda"):
        return threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(threads, min(cores, MOST_HELPERS))
