"""Decoded pairs in a folder of files (shards) mapped into memory; each ends in the sha256 of what is before it.

Written in parallel, each by rename, so that a folder that a killed process leaves is completed by the next one.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from blurdm.errors import InputError
from blurdm.runs import Tell, locked, read_json, write_bytes, write_json

SHARD_BYTES = 64 * 2**20
SHARDS = 256  # no more of them, for each keeps a file open
SOURCE = "source.json"
DIGEST_BYTES = hashlib.sha256().digest_size

Decode = Callable[[int, np.ndarray], None]
"""(number of a pair, the flat uint8 array of its size to write it to)"""


def mapped(folder: Path, sizes: Sequence[int], decode: Decode, source: dict[str, str], tell: Tell) -> list[np.ndarray]:
    """Pairs, of ``sizes`` in bytes, as flat read-only maps of files in ``folder``; what is not sound is written before.

    ``source`` is {root, digest} of the data: folders beside this one, of the same root and another digest, are removed,
    for their data is gone. ``tell`` hears what is going to be written. InputError if the disk has no room for it.
    """
    shards = _shards(sizes)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:

        def unsound() -> list[int]:
            checked = pool.map(lambda n: _sound(folder / _name(n), _bytes(sizes, shards[n])), range(len(shards)))
            return [number for number, sound in enumerate(checked) if not sound]

        if unsound():
            with locked(folder, lambda owner: tell(f"waiting for {owner}, which decodes the data")):
                wanted = unsound()  # another process may have written them meanwhile
                if wanted:
                    _announce(folder, sum(_bytes(sizes, shards[n]) for n in wanted), len(wanted), tell)
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


def _sound(path: Path, size: int) -> bool:
    """Whether the shard at ``path`` is there, of the right size, and holds what was written."""
    if not path.is_file() or path.stat().st_size != size + DIGEST_BYTES:
        return False
    content = np.memmap(path, np.uint8, "r")
    return hashlib.sha256(content[:size].data).digest() == content[size:].tobytes()


def _announce(folder: Path, size: int, files: int, tell: Tell) -> None:
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
