"""Carry the weights of metrics to a machine without a network: one tar file with a manifest of digests."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes
from blurdm.metrics.weights import WEIGHTS, place, read, unpacked

MANIFEST = "manifest.json"


def pack(target: Path) -> list[str]:
    """Write all weights of this machine's cache into ``target`` and return their names; InputError if there are none.

    The same weights give the same bytes.
    """
    names = [name for name in WEIGHTS if place(name).is_file()]
    if not names:
        raise InputError(f"{place('lpips').parent}: no weights to pack; run 'blurdm weights fetch' first")
    for name in names:
        read(name)  # nothing damaged is passed on
    files = {WEIGHTS[name].file: place(name).read_bytes() for name in names}
    manifest = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file, content in ({MANIFEST: json.dumps(manifest, indent=1).encode()} | files).items():
            member = tarfile.TarInfo(file)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    write_bytes(target, packed.getvalue())
    return names


def install(source: Path) -> list[str]:
    """Put the weights that ``pack`` wrote into the cache and return their names: all, or none and an InputError.

    The archive chooses no path: only members of known names are read, checked, then written.
    """
    files = _read_members(source)
    try:
        manifest = dict(json.loads(files.pop(MANIFEST)))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{source}: holds no readable {MANIFEST}; should be made by 'blurdm weights pack'") from None
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    for file in sorted({*digests, *manifest}):
        if digests.get(file) != manifest.get(file):
            raise InputError(f"{source}: {file} is not as {MANIFEST} says; damaged, copy or pack it again")
    names = [name for name, weights in WEIGHTS.items() if weights.file in files]
    for name in names:
        unpacked(name, files[WEIGHTS[name].file], f"{source}: {WEIGHTS[name].file}")
    for name in names:
        write_bytes(place(name), files[WEIGHTS[name].file])
    return names


def _read_members(source: Path) -> dict[str, bytes]:
    expected = {MANIFEST, *(weights.file for weights in WEIGHTS.values())}
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(source, "r:") as archive:
            for member in archive:
                if member.name not in expected or member.name in files or not member.isfile():
                    raise InputError(f"{source}: refused, '{member.name}' is no weights file or is there twice")
                content = archive.extractfile(member)
                files[member.name] = content.read() if content else b""
    except FileNotFoundError:
        raise InputError(f"{source}: no such file; make it with 'blurdm weights pack'") from None
    except (OSError, tarfile.TarError, EOFError) as error:
        raise InputError(f"{source}: damaged or not made by 'blurdm weights pack' ({error})") from None
    return files
