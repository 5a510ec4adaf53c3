"""Checkpoints: checksummed, written by rename in the background, and only used by the run that wrote them."""

import hashlib
import io
import os
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from blurdm.core.errors import InputError
from blurdm.core.progress import Notify, say_nothing
from blurdm.core.store import file_digest, read_json, write_bytes
from blurdm.models.unpickle import read_tensors
from blurdm.models.weights import MOST_BYTES, load, read_weights

_DIGEST_BYTES = hashlib.sha256().digest_size
# A kill between the two renames of save_checkpoint leaves only fresh.pt and previous.pt.
_NEWEST_FIRST = ("last.pt", "fresh.pt", "previous.pt")


class Checkpoints:
    """Saves states of one run in ``folder`` at most every ``seconds`` (0: always when asked), in its own thread.

    Large states are saved less often, so that saving takes at most a hundredth of the time.
    """

    SHARE = 0.01

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[float] | None = None
        self._cost = 0.0  # seconds that the last save took
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save again."""
        if self._writing is not None and self._writing.done():
            self.wait()
        pause = max(self.seconds, self._cost / self.SHARE) if self.seconds else 0.0
        return time.monotonic() - self._saved > pause

    def save(self, state: dict[str, Any]) -> None:
        """Start writing a copy of ``state``; InputError if the save before has failed."""
        self.wait()
        started = time.monotonic()
        copy = _copied(state)
        self._saved = time.monotonic()
        self._cost = self._saved - started
        self._writing = self._thread.submit(_timed_save, self.folder, copy)

    def wait(self) -> None:
        """Wait until the last save is on the disk; InputError if it failed."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._cost += writing.result()

    def close(self) -> None:
        """End the thread after what it is writing."""
        self._thread.shutdown()


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values; must hold "key") as last.pt, keeping the one before as previous.pt."""
    buffer = io.BytesIO()
    buffer.write(bytes(_DIGEST_BYTES))
    torch.save(state, buffer)
    content = buffer.getbuffer()
    content[:_DIGEST_BYTES] = hashlib.sha256(content[_DIGEST_BYTES:]).digest()
    last, previous = folder / "last.pt", folder / "previous.pt"
    fresh = folder / "fresh.pt"
    write_bytes(fresh, content)
    if last.is_file():
        os.replace(last, previous)
    os.replace(fresh, last)


def load_checkpoint(folder: Path, key: str, on_note: Notify = say_nothing) -> dict[str, Any] | None:
    """The newest sound checkpoint in ``folder``, None if there is none; ``on_note`` is called for damaged ones.

    A damaged one is removed if there is a sound one. InputError if all are damaged, or it belongs to another run.
    """
    damaged: list[Path] = []
    for path in (folder / name for name in _NEWEST_FIRST):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != digest:
            damaged.append(path)
            continue
        state: Any = read_tensors(payload, str(path))
        owner = state.get("key") if isinstance(state, dict) else None
        if owner != key:
            raise InputError(
                f"{path}: belongs to run {owner}, not {key}; delete it, a different config is never continued"
            )
        for corrupt in damaged:  # or the next save would keep it and not this one
            on_note(f"{corrupt}: corrupt checkpoint (checksum differs), continuing from {path.name}")
            corrupt.unlink(missing_ok=True)
        return state
    if damaged:
        raise InputError(f"{damaged[0]}: corrupt checkpoint (checksum differs); delete this file to start over")
    return None


def save_weights(folder: Path, module: nn.Module) -> str:
    """Write weights.safetensors and return its sha256; shared or sliced tensors are stored on their own."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    write_bytes(folder / "weights.safetensors", save(state))
    return file_digest(folder / "weights.safetensors")


def weights_file(folder: Path) -> Path:
    """The weights of the finished run in ``folder``; InputError if the file is missing or not what the run wrote."""
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: missing; delete {folder / 'result.json'} to have the run made again")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path}: larger than {MOST_BYTES >> 30} GB; should be the weights of one network")
    if file_digest(path) != read_json(folder / "result.json")["weights_sha256"]:
        raise InputError(
            f"{path}: corrupt (sha256 differs from result.json); delete the folder to have the run made again"
        )
    return path


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of the finished run in ``folder``; InputError as by ``weights_file``."""
    return read_weights(weights_file(folder))


def load_part(module: nn.Module, folder: Path, prefix: str = "") -> None:
    """Put those weights of the run in ``folder`` into ``module`` whose names begin with ``prefix``; InputError."""
    weights = {name.removeprefix(prefix): w for name, w in load_weights(folder).items() if name.startswith(prefix)}
    load(module, weights, str(folder / "weights.safetensors"))


def _timed_save(folder: Path, state: dict[str, Any]) -> float:
    """Save, and return the CPU seconds that this thread took."""
    started = time.thread_time()
    save_checkpoint(folder, state)
    return time.thread_time() - started


def _copied(value: Any) -> Any:
    """``value`` with all its tensors copied to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: _copied(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(part) for part in value]
    return value
