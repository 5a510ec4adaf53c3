"""Decoded pairs in a folder of memory-mapped files (shards); each ends in the sha256 of its content.

Shards are written in parallel, each by rename, so the next process completes the folder of a killed one.

A shard is hashed at its first use on a day (UTC), and again when its inode, size or time of change differs; ranks,
runs side by side and restarts rely on that. So a later write is noticed at the next start, and a defect of the disk at
the first start of the next day.
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
SHARDS = 256  # at most, since each keeps a file open
SOURCE = "source.json"
SOUND = "sound.json"
DAY_SECONDS = 86_400
DIGEST_BYTES = hashlib.sha256().digest_size

Decode = Callable[[int, np.ndarray], None]
"""(number of a pair, the flat uint8 array of its size to write it to)"""


def mapped(
    folder: Path, sizes: Sequence[int], decode: Decode, source: dict[str, str], on_note: Notify
) -> list[np.ndarray]:
    """Pairs, of ``sizes`` in bytes, as flat read-only maps of files in ``folder``; writes missing or corrupt ones.

    ``source`` is {root, digest} of the data: folders beside this one, of the same root and another digest, are removed,
    since their data is gone. ``on_note`` is called before writing. InputError if the disk has no room.
    """
    shards = _shards(sizes)
    lengths = [_bytes(sizes, pairs) for pairs in shards]
    if None in _remembered(folder, lengths):
        # Of the processes that start at the same time, one checks and writes.
        with (
            locked(folder, lambda owner: on_note(f"waiting for {owner}, which checks or decodes the data")),
            ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        ):
            corrupt = _corrupt(folder, lengths, pool)
            if corrupt:
                _require_space(folder, sum(lengths[n] for n in corrupt), len(corrupt), on_note)
                write_json(folder / SOURCE, source)
                for path in folder.parent.glob(f"*/{SOURCE}"):
                    other = read_json(path)
                    outdated = other["root"] == source["root"] and other["digest"] != source["digest"]
                    if path.parent != folder and outdated:
                        shutil.rmtree(path.parent, ignore_errors=True)
                list(pool.map(lambda n: _write(folder / _name(n), sizes, shards[n], decode), corrupt))
    maps = []
    for number, pairs in enumerate(shards):
        content = np.memmap(folder / _name(number), np.uint8, "r")
        ends = np.cumsum([sizes[pair] for pair in pairs])
        maps += [content[end - sizes[pair] : end] for pair, end in zip(pairs, ends, strict=True)]
    return maps


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
    """The states of the shards that were checked today and have not changed since; None for the others."""
    try:
        checked = read_json(folder / SOUND)
    except InputError:
        checked = {}
    states = [_state(folder / _name(number), length) for number, length in enumerate(lengths)]
    return [state if checked.get(_name(number)) == state else None for number, state in enumerate(states)]


def _corrupt(folder: Path, lengths: Sequence[int], pool: ThreadPoolExecutor) -> list[int]:
    """The shards that are missing or whose hash differs; the others are remembered as sound."""

    def checked(number: int, remembered: list[int] | None) -> list[int] | None:
        path, size = folder / _name(number), lengths[number]
        state = remembered or _state(path, size)
        return state if remembered or (state and _is_sound(path, size)) else None

    states = list(pool.map(checked, range(len(lengths)), _remembered(folder, lengths)))
    write_json(folder / SOUND, {_name(number): state for number, state in enumerate(states) if state})
    return [number for number, state in enumerate(states) if state is None]


def _state(path: Path, size: int) -> list[int] | None:
    """Inode, size and time of change of a shard of ``size``, and today's day (UTC); None without such a file."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    state = [stat.st_ino, stat.st_size, stat.st_ctime_ns, int(time.time() // DAY_SECONDS)]
    return state if stat.st_size == size + DIGEST_BYTES else None


def _is_sound(path: Path, size: int) -> bool:
    """Whether the hash at the end of a shard of ``size`` is that of its content."""
    content = np.memmap(path, np.uint8, "r")
    return hashlib.sha256(content[:size].data).digest() == content[size:].tobytes()


def _require_space(folder: Path, size: int, files: int, on_note: Notify) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise InputError(
            f"{folder}: {megabytes(size)} needed for decoded images, {megabytes(free)} free; free some, or put the runs"
            " on a larger disk"
        )
    on_note(f"decoding images once: {megabytes(size)} in {files} files to {folder}")


def _write(path: Path, sizes: Sequence[int], pairs: range, decode: Decode) -> None:
    size = _bytes(sizes, pairs)
    content = np.empty(size + DIGEST_BYTES, np.uint8)
    start = 0
    for number in pairs:
        decode(number, content[start : start + sizes[number]])
        start += sizes[number]
    content[size:] = np.frombuffer(hashlib.sha256(content[:size].data).digest(), np.uint8)
    write_bytes(path, content.data)
