"""Decoded pairs in a folder of files (shards) mapped into memory; each ends in the sha256 of what is before it.

Written in parallel, each by rename, so that a folder that a killed process leaves is completed by the next one.

A shard is read and hashed when it is first wanted on a day (UTC), but for the process that has just written it, and
again when its inode, size or time of change is another one; ranks, runs side by side and restarts rely on that. So
whatever is written to a shard is noticed at the next start, and what rots on the disk at the first of the next day.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from blurdm.core.errors import InputError
from blurdm.core.progress import Notify
from blurdm.core.store import locked, read_json, write_bytes, write_json

SHARD_BYTES = 64 * 2**20
SHARDS = 256  # no more of them, for each keeps a file open
SOURCE = "source.json"
SOUND = "sound.json"
DAY_SECONDS = 86_400
DIGEST_BYTES = hashlib.sha256().digest_size

Decode = Callable[[int, np.ndarray], None]
"""(number of a pair, the flat uint8 array of its size to write it to)"""


def mapped(
    folder: Path, sizes: Sequence[int], decode: Decode, source: dict[str, str], tell: Notify
) -> list[np.ndarray]:
    """Pairs, of ``sizes`` in bytes, as flat read-only maps of files in ``folder``; what is not sound is written before.

    ``source`` is {root, digest} of the data: folders beside this one, of the same root and another digest, are removed,
    for their data is gone. ``tell`` hears what is going to be written. InputError if the disk has no room for it.
    """
    shards = _shards(sizes)
    lengths = [_bytes(sizes, pairs) for pairs in shards]
    if None in _remembered(folder, lengths):
        # One process checks, and writes, what all that start at the same time would.
        with (
            locked(folder, lambda owner: tell(f"waiting for {owner}, which checks or decodes the data")),
            ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        ):
            wanted = _unsound(folder, lengths, pool)
            if wanted:
                _announce(folder, sum(lengths[n] for n in wanted), len(wanted), tell)
                write_json(folder / SOURCE, source)
                _remove_outdated(folder, source)
                list(pool.map(lambda n: _write(folder / _name(n), sizes, shards[n], decode), wanted))
    return [pair for number, pairs in enumerate(shards) for pair in _map(folder / _name(number), sizes, pairs)]


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _name(number: int) -> str:
    return f"{number:03}.u8"


def _shards(sizes: Sequence[int]) -> list[range]:
    """Consecutive pairs of about SHARD_BYTES, or of more where there would be too many."""
    limit = max(SHARD_BYTES, sum(sizes) // SHARDS)
    shards, first, filled = [], 0, 0
    for number, size in enumerate(sizes):
        filled += size
        if filled >= limit or number == len(sizes) - 1:
            shards.append(range(first, number + 1))
            first, filled = number + 1, 0
    return shards


def _bytes(sizes: Sequence[int], pairs: range) -> int:
    return sum(sizes[number] for number in pairs)


def _remembered(folder: Path, lengths: Sequence[int]) -> list[list[int] | None]:
    """The states of those shards that were found sound today, and have not changed since; None for the others."""
    try:
        found = read_json(folder / SOUND)
    except InputError:
        found = {}
    states = [_state(folder / _name(number), length) for number, length in enumerate(lengths)]
    return [state if found.get(_name(number)) == state else None for number, state in enumerate(states)]


def _unsound(folder: Path, lengths: Sequence[int], pool: ThreadPoolExecutor) -> list[int]:
    """The shards that are not there or not as they were written; the others are remembered as sound."""

    def checked(number: int, known: list[int] | None) -> list[int] | None:
        path = folder / _name(number)
        state = known or _state(path, lengths[number])
        return state if known or (state and _sound(path, lengths[number])) else None

    states = list(pool.map(checked, range(len(lengths)), _remembered(folder, lengths)))
    write_json(folder / SOUND, {_name(number): state for number, state in enumerate(states) if state})
    return [number for number, state in enumerate(states) if state is None]


def _state(path: Path, size: int) -> list[int] | None:
    """What changes with each write to a shard of ``size``, and the day it is (UTC); None without such a file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    state = [found.st_ino, found.st_size, found.st_ctime_ns, int(time.time() // DAY_SECONDS)]
    return state if found.st_size == size + DIGEST_BYTES else None


def _sound(path: Path, size: int) -> bool:
    """Whether the shard at ``path``, of the right size, holds what was written."""
    content = np.memmap(path, np.uint8, "r")
    return hashlib.sha256(content[:size].data).digest() == content[size:].tobytes()


def _announce(folder: Path, size: int, files: int, tell: Notify) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise InputError(
            f"{folder}: {megabytes(size)} needed for decoded images, {megabytes(free)} free; free some, or put the runs"
            " on a larger disk"
        )
    tell(f"decoding images once: {megabytes(size)} in {files} files to {folder}")


def _write(path: Path, sizes: Sequence[int], pairs: range, decode: Decode) -> None:
    size = _bytes(sizes, pairs)
    content = np.empty(size + DIGEST_BYTES, np.uint8)
    start = 0
    for number in pairs:
        decode(number, content[start : start + sizes[number]])
        start += sizes[number]
    content[size:] = np.frombuffer(hashlib.sha256(content[:size].data).digest(), np.uint8)
    write_bytes(path, content.data)


def _map(path: Path, sizes: Sequence[int], pairs: range) -> list[np.ndarray]:
    content = np.memmap(path, np.uint8, "r")
    ends = np.cumsum([sizes[number] for number in pairs])
    return [content[end - sizes[number] : end] for number, end in zip(pairs, ends, strict=True)]


def _remove_outdated(folder: Path, source: dict[str, str]) -> None:
    for path in folder.parent.glob(f"*/{SOURCE}"):
        other = read_json(path)
        if path.parent != folder and other["root"] == source["root"] and other["digest"] != source["digest"]:
            shutil.rmtree(path.parent, ignore_errors=True)
