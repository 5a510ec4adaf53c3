"""Every random draw derives from (seed, purpose, step): a killed run that continues draws what it would have drawn."""

import hashlib

import numpy as np


def derive(seed: int, *purpose: object) -> int:
    """A 63-bit seed that depends on ``seed`` and every part of ``purpose``, the same on every machine."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: object) -> np.random.Generator:
    """A NumPy generator of its own for this draw."""
    return np.random.default_rng(derive(seed, *purpose))
