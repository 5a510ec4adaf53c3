"""The page's gallery: blurred and restored, over each other, for test images and models; small enough to be sent."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from analysis.measured import Measured, all_measured
from analysis.pictures import find
from analysis.sources import Sources
from analysis.tables import ARMS
from blurdm.core.runs import restore_folder
from blurdm.pages import data_uri, slider

MOST_CARDS = 60
MOST_BYTES = 9_000_000  # of all pictures together, as they stand in the page
LONGEST = 640  # pixels of a picture's longer side
QUALITY = 82
GRIDS = ("backbones*",)  # sweeps over networks; those over settings have too many rows to look at


@dataclass(frozen=True)
class Card:
    """One slider with what is said below it; ``tags`` for the filters."""

    title: str
    text: str
    slider: str
    tags: dict[str, str]


@dataclass(frozen=True)
class Gallery:
    """``total``: how many pairs were kept by the runs, of which ``cards`` shows the first."""

    cards: tuple[Card, ...]
    total: int

    @property
    def note(self) -> str:
        left = self.total - len(self.cards)
        if not self.cards:
            return "The restore runs kept no images (restore.keep, restore.samples_per_scene)."
        shown = f"{len(self.cards)} of {self.total} kept restorations" if left else f"{self.total} restorations"
        return (
            f"{shown}, of the first seed. Left of the bar the blurred input, right of it the restoration: drag, or"
            f" use the arrow keys. The pictures are compressed and at most {LONGEST} pixels long; PSNR is that of the"
            " originals."
        )


def gallery(sources: Sources) -> Gallery:
    """Image by image, so that where room ends every model has been seen."""
    pairs = sorted(_pairs(sources), key=lambda pair: (pair.place, pair.order))
    cards: list[Card] = []
    coded: dict[Path, str] = {}
    room = MOST_BYTES
    for pair in pairs:
        before, after = (coded.get(file) or coded.setdefault(file, _coded(file)) for file in (pair.before, pair.after))
        room -= len(before) + len(after)
        if len(cards) == MOST_CARDS or room < 0:
            break
        label = f"{pair.scene}/{pair.image}, {pair.model}"
        shown = slider(before, after, label, ("blurred", pair.model))
        tags = {"dataset": pair.dataset, "backbone": pair.backbone}
        cards.append(Card(label, pair.text, shown, tags))
    return Gallery(tuple(cards), len(pairs))


@dataclass(frozen=True)
class _Pair:
    scene: str
    image: str
    model: str
    dataset: str
    backbone: str
    text: str
    before: Path
    after: Path
    order: int

    @property
    def place(self) -> tuple[str, str, str]:
        return self.dataset, self.scene, self.image


def _pairs(sources: Sources) -> Iterator[_Pair]:
    """Every image that a measured model's first run kept, with its blurred input."""
    inputs = [restore_folder(sources.folder(str(key))) for key in _blurred_runs(sources)]
    for order, one in enumerate(all_measured(sources, GRIDS)):
        seeds = one.rows.seed
        rows = one.rows[seeds.isna() | (seeds == seeds.min())]
        for row in rows.itertuples():
            scene, image = str(row.scene), str(row.image)
            folder = restore_folder(sources.folder(str(row.key)))
            before, after = find(inputs, "blurred", scene, image), find([folder], one.method, scene, image)
            if before is None or after is None:
                continue
            names = _names(one, sources)
            psnr = getattr(row, "psnr", None)
            text = f"{names['dataset']}, {names['backbone']}" + ("" if psnr is None else f", {psnr:.2f} dB")
            yield _Pair(
                scene, image, ARMS[one.method].label, **names, text=text, before=before, after=after, order=order
            )


def _blurred_runs(sources: Sources) -> list[str]:
    rows, _ = sources.chain
    return list(rows[rows.arm == "blurred"].key.unique())


def _names(one: Measured, sources: Sources) -> dict[str, str]:
    published = sources.published
    dataset = one.dataset(published) or f"{one.n_images} images, not a published test set"
    return {"dataset": dataset, "backbone": one.label(published)}


def _coded(file: Path) -> str:
    """The picture as WebP in a data URI, shrunk to LONGEST; the same file gives the same text."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((LONGEST, LONGEST))
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=QUALITY, method=4)
    return data_uri(content.getvalue(), "image/webp")
