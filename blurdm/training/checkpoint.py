"""Checkpoints that are whole or refused: checksummed, written by rename, bound to the key of their run."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from blurdm.errors import InputError
from blurdm.runs import file_digest, read_json, write_bytes

_DIGEST_BYTES = hashlib.sha256().digest_size


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values; must hold "key") as last.pt, keeping the one before as previous.pt."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    last, previous = folder / "last.pt", folder / "previous.pt"
    fresh = folder / "fresh.pt"
    write_bytes(fresh, hashlib.sha256(payload).digest() + payload)
    if last.is_file():
        os.replace(last, previous)
    os.replace(fresh, last)


def load_checkpoint(folder: Path, key: str) -> dict[str, Any] | None:
    """The newest checkpoint in ``folder``, or None; InputError if it is damaged or belongs to another run."""
    # A kill between the two renames of save_checkpoint leaves only fresh.pt and previous.pt.
    path = next((p for name in ("last.pt", "fresh.pt", "previous.pt") if (p := folder / name).is_file()), None)
    if path is None:
        return None
    content = path.read_bytes()
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        raise InputError(
            f"{path}: corrupt checkpoint (checksum differs); delete this file to continue from {_before(path)}"
        )
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    if state["key"] != key:
        raise InputError(
            f"{path}: belongs to run {state['key']}, not {key}; delete it, a different config is never continued"
        )
    return state


def save_weights(folder: Path, module: nn.Module) -> str:
    """Write weights.safetensors and return its sha256; shared or sliced tensors are stored on their own."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    write_bytes(folder / "weights.safetensors", save(state))
    return file_digest(folder / "weights.safetensors")


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of the finished run in ``folder``; InputError if the file is missing or not what the run wrote."""
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: missing; delete {folder / 'result.json'} to have the run made again")
    if file_digest(path) != read_json(folder / "result.json")["weights_sha256"]:
        raise InputError(
            f"{path}: corrupt (sha256 differs from result.json); delete the folder to have the run made again"
        )
    return load_file(path)


def _before(path: Path) -> str:
    previous = path.with_name("previous.pt")
    return previous.name if previous.is_file() and previous != path else "the start"
