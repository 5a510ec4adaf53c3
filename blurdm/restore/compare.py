"""A page that shows photos before and after, one over the other; it opens from disk and needs no network."""

import functools
import io
import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from blurdm.pages import data_uri, page, slider
from blurdm.restore.files import ManifestEntry, Task, digest_of, permissions, shown, store
from blurdm.restore.photo import Photo

PAGE = "compare.html"
SIDE = 1600  # px; larger photos are shown smaller
MOST_PAIRS = 200  # on a page, which holds its pictures itself
STYLE = """body { max-width: 60rem; margin: 0 auto; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { margin: 1.5rem 0 0.4rem; font-size: 1rem; overflow-wrap: anywhere; }"""


@dataclass(frozen=True)
class Preview:
    """A photo and its restoration as JPEGs to look at."""

    name: str
    before: bytes
    after: bytes


def make_preview(name: str, photo: Photo, restored: np.ndarray) -> Preview:
    """Small pictures of ``photo`` and of its ``restored`` pixels, both with the photo's colour profile."""
    profile = photo.info.get("icc_profile")
    return Preview(name, _preview(photo.pixels, profile), _preview(restored, profile))


def _preview(pixels: np.ndarray, profile: bytes | None) -> bytes:
    eight = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
    image = Image.fromarray(eight)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=90, icc_profile=profile)
    return buffer.getvalue()


def write_page(previews: Mapping[Task, Preview], manifest: Mapping[str, Sequence[ManifestEntry]]) -> Path:
    """Write the page of photos with one folder of results into it, and return its path.

    It is ``compare.html``, or where somebody else's file has that name, ``compare-2.html``, and so on. Its permissions
    are those that all photos have.
    """
    parts = []
    for preview in previews.values():
        name = shown(preview.name)
        before, after = (data_uri(part, "image/jpeg") for part in (preview.before, preview.after))
        parts.append(f"<h2>{escape(name)}</h2>\n{slider(before, after, name, ('photo', 'restored'))}")
    content = page("Before and after", "\n".join(["<h1>Before and after</h1>", *parts]), STYLE).encode()
    mode = functools.reduce(operator.and_, (permissions(task.photo) for task in previews))
    first = next(iter(previews))
    names = itertools.chain([PAGE], (PAGE.replace(".", f"-{number}.") for number in itertools.count(2)))
    name = next(n for n in names if digest_of(first.out / n) in {None, *(e.output for e in manifest.get(n, ()))})
    task = replace(first, photo=Path(name), name=name)
    store(task, b"", "", content, manifest.get(name, ()), mode)
    return task.target
