"""The page's gallery: sliders between blurred and restored test images, by model, within a size limit."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from analysis.names import visible
from analysis.pictures import BLURRED, find
from analysis.sources import Sources
from analysis.tables.leaderboard import MethodRows, beside_chain
from analysis.tables.measured import all_measured
from blurdm.core.arms import ARMS
from blurdm.core.runs import restore_folder
from blurdm.core.store import read_json
from blurdm.pages import data_uri, slider

MOST_CARDS = 60
MOST_BYTES = 9_000_000  # of all encoded pictures together
LONGEST = 640  # pixels of a picture's longer side
QUALITY = 82
GRIDS = ("backbones*",)  # sweeps over networks; those over settings have too many rows


@dataclass(frozen=True)
class Card:
    """One slider with its title and text; ``tags`` for the filters."""

    title: str
    text: str
    slider: str
    tags: dict[str, str]


@dataclass(frozen=True)
class Gallery:
    """``total``: number of pairs kept by the runs; ``cards`` shows the first of them."""

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
    """The restorations of the chain, of sweeps over networks, and of others that were measured on the same images."""
    others = [entry for entry in beside_chain(sources) if entry.given or entry.arm == BLURRED]
    return gallery_of([*_pairs(sources), *method_pairs("given", others)])


def gallery_of(kept: Iterable["KeptPair"]) -> Gallery:
    """Cards image by image, so that every model is shown even if the limit is reached early."""
    pairs = sorted(kept, key=lambda pair: (pair.place, pair.order))
    cards: list[Card] = []
    encoded: dict[Path, str] = {}
    room = MOST_BYTES
    for pair in pairs:
        for file in (pair.before, pair.after):
            if file not in encoded:
                encoded[file] = _encode(file)
        before, after = encoded[pair.before], encoded[pair.after]
        room -= len(before) + len(after)
        if len(cards) == MOST_CARDS or room < 0:
            break
        title = f"{pair.scene}/{pair.image}, {pair.model}"
        tags = {"dataset": pair.dataset, "backbone": pair.backbone} if pair.backbone else {"dataset": pair.dataset}
        cards.append(Card(title, pair.text, slider(before, after, visible(title), (pair.left, pair.model)), tags))
    return Gallery(tuple(cards), len(pairs))


@dataclass(frozen=True)
class KeptPair:
    """The files of one blurred and one restored image; ``order``: of the model; ``left``: the first one, in a word."""

    scene: str
    image: str
    model: str
    dataset: str
    backbone: str
    text: str
    before: Path
    after: Path
    order: int
    left: str = "blurred"

    @property
    def place(self) -> tuple[str, str, str]:
        return self.dataset, self.scene, self.image


def _pairs(sources: Sources) -> Iterator[KeptPair]:
    """Every image that a measured model's first run kept, with its blurred input."""
    published, (chain_rows, _) = sources.published, sources.chain
    blurred = chain_rows[chain_rows.arm == BLURRED]
    inputs = [restore_folder(sources.folder(str(key))) for key in blurred.key.unique()]
    own = blurred.drop_duplicates(["scene", "image"]) if "psnr" in blurred else blurred.iloc[:0]
    before_psnr = {(str(r.scene), str(r.image)): float(r.psnr) for r in own.itertuples()}  # dB
    for order, network in enumerate(all_measured(sources, GRIDS)):
        dataset = network.dataset(published) or f"{network.n_images} images, not a published test set"
        backbone = network.label(published)
        seeds = network.rows.seed
        for row in network.rows[seeds.isna() | (seeds == seeds.min())].itertuples():
            scene, image = str(row.scene), str(row.image)
            before = find(inputs, BLURRED, scene, image)
            after = find([restore_folder(sources.folder(str(row.key)))], network.method, scene, image)
            if before is None or after is None:
                continue
            text = ", ".join([dataset, backbone, *([] if pd.isna(row.seed) else [f"seed {row.seed}"])])
            psnr, was = getattr(row, "psnr", None), before_psnr.get((scene, image))
            text += "" if psnr is None else f": PSNR {psnr:.2f} dB" + ("" if was is None else f", blurred {was:.2f} dB")
            model = ARMS[network.method].title
            yield KeptPair(scene, image, model, dataset, backbone, text, before, after, order)


def method_pairs(title: str, entries: Sequence[MethodRows]) -> Iterator[KeptPair]:
    """Every image that a method's first run kept, beside its blurred input, or else the sharp image."""
    inputs = [restore_folder(entry.folder) for entry in entries if entry.arm == BLURRED]
    firsts: dict[str, MethodRows] = {}
    for entry in entries:
        firsts.setdefault(entry.method, entry)
    for order, (method, entry) in enumerate(firsts.items()):
        own = restore_folder(entry.folder)
        sources = _sources(own) if entry.given else {}
        for row in entry.rows.itertuples():
            scene, image = str(row.scene), str(row.image)
            left, before = "blurred", find(inputs, BLURRED, scene, image)
            if before is None:
                left, before = sources.get((scene, image), ("", None))
            after = find([own], entry.arm, scene, image)
            if entry.arm == BLURRED or before is None or after is None:
                continue
            psnr = getattr(row, "psnr", None)
            text = title + ("" if psnr is None else f", {psnr:.2f} dB")
            yield KeptPair(scene, image, method, title, "", text, before, after, order, left)


def _sources(restored: Path) -> dict[tuple[str, str], tuple[str, Path]]:
    """The blurred images that somebody's restorations are of, or the sharp ones where there are no others, if there."""
    prepared = restored.parent.parent / "prepare" / str(read_json(restored / "config.json")["inputs"]["prepare"])
    root = Path(str(read_json(restored / "provenance.json").get("against", "")))
    if not root.is_dir() or not (prepared / "index.json").is_file():
        return {}
    found = {}
    for pair in read_json(prepared / "index.json")["pairs"]:
        blurred, sharp = root / pair["blur"], root / pair["sharp"]
        if pair["split"] == "test" and blurred.is_file():
            same = sharp.is_file() and blurred.resolve() == sharp.resolve()
            found[pair["scene"], pair["name"]] = ("sharp" if same else "blurred", blurred)
    return found


def _encode(file: Path) -> str:
    """The picture as WebP in a data URI, shrunk to LONGEST; the same file gives the same text."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((LONGEST, LONGEST))
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=QUALITY, method=4)
    return data_uri(content.getvalue(), "image/webp")
