"""Which pictures go to a tracking server unasked: those of the demo's own photos, which anybody may see."""

import hashlib
from contextlib import suppress
from pathlib import Path

from blurdm.core.errors import InputError
from blurdm.core.store import read_json
from blurdm.data.blur.formation import SETTINGS
from blurdm.data.photos.pins import md5
from blurdm.data.photos.sources import PACKAGED
from blurdm.data.splits import folder_digest

FIGURES = {"examples", "failures", "restorations"}  # of analysis/figures: those in which photos can be seen


def shows_photos(file: Path) -> bool:
    return file.stem in FIGURES


def demo_digests(repo: Path) -> frozenset[str]:
    """The digests of the data sets in ``repo``/data that were made of the demo's photos and of no others."""
    copies = {repo / "data" / "demo" / photo.file: photo.md5 for photo in PACKAGED}
    contents = [(path.read_bytes(), known) for path, known in copies.items() if path.is_file()]
    packaged = {hashlib.sha256(content).hexdigest() for content, known in contents if md5(content) == known}
    digests = set()
    for settings in (repo / "data").glob(f"*/{SETTINGS}"):
        with suppress(InputError, AttributeError):  # of somebody else's file of this name, or an incomplete folder
            used = read_json(settings).get("photos", {}).values()
            if used and set(used) <= packaged:
                digests.add(folder_digest(settings.parent))
    return frozenset(digests)
