"""Everything that figures share: their data, their style, and how they become files."""

import hashlib
import io
import json
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from analysis.fonts import families, font_of
from analysis.load import measure_runs
from analysis.names import code_point, visible
from analysis.stats import photos_of
from blurdm.core.errors import InputError
from blurdm.core.registry import load_module
from blurdm.core.runs import restore_folder
from blurdm.core.store import write_bytes

PACKAGE = "analysis.figures"
INDEX = "figures.json"  # beside the figures: name, title, caption, and the reason if one is missing
STYLE = Path(__file__).with_name("style.mplstyle")
WIDTH = 6.8  # inches: the text width of a page
PHOTO_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#7F7F7F")
PHOTO_MARKERS = "osD^vP*X"
LONGEST_NAME, LONGEST_TEXT = 100, 1000  # characters, in a figure


class Missing(InputError):
    """A figure has no data; the message says which, for the report to repeat."""


@dataclass(frozen=True)
class Inputs:
    """``rows`` and ``costs`` as from ``collect``, ``curves`` as from ``collect_curves``, ``differences`` as from
    ``difference_numbers``: one row per comparison of two arms and metric.
    """

    pointer: Path
    rows: pd.DataFrame
    costs: pd.DataFrame
    curves: pd.DataFrame
    differences: pd.DataFrame

    @cached_property
    def first_seed(self) -> int | None:
        """The seed whose pictures are shown; None if nothing was trained."""
        seeds = self.rows.seed.dropna()
        return int(seeds.min()) if len(seeds) else None

    def first_seed_runs(self, model: str | None = None) -> list[Path]:
        """The measure runs of the first seed and those without seed; only those of the stage ``model`` if given."""
        return [
            folder
            for entry, folder in measure_runs(self.pointer)
            if entry["seed"] in (None, self.first_seed) and model in (None, entry["model"])
        ]

    def restored(self, model: str | None = None) -> list[Path]:
        """The restore runs that these measured."""
        return [restore_folder(folder) for folder in self.first_seed_runs(model)]

    @cached_property
    def first(self) -> pd.DataFrame:
        """The rows of these runs."""
        return self.rows[self.rows.seed.isna() | (self.rows.seed == self.first_seed)]

    @property
    def counted(self) -> str:
        """``12 test images of 4 photos, 3 seeds``."""
        images = self.rows[["scene", "image"]].drop_duplicates()
        photos, seeds = len(set(photos_of(images.scene, images.image))), self.rows.seed.nunique()
        parts = (len(images), "test image"), (photos, "photo"), (seeds, "seed")
        n_images, n_photos, n_seeds = (f"{n} {noun}{'s' * (n != 1)}" for n, noun in parts)
        return f"{n_images} of {n_photos}, {n_seeds}"

    @cached_property
    def psnr(self) -> pd.DataFrame:
        """PSNR (dB), mean over seeds: a row per (scene, image), a column per arm; Missing if it was not measured."""
        if "psnr" not in self.rows or self.rows.psnr.isna().all():
            raise Missing("PSNR was not measured")
        return by_image(self.rows, "psnr", "arm")

    def psnr_of(self, *arms: str) -> pd.DataFrame:
        """``psnr`` of the images that all ``arms`` have; Missing names an arm without results."""
        absent = [arm for arm in arms if arm not in self.psnr]
        if absent:
            raise Missing(f"nothing was measured of: {', '.join(absent)}")
        return self.psnr.dropna(subset=list(arms))


def by_image(rows: pd.DataFrame, metric: str, columns: str | list[str]) -> pd.DataFrame:
    """Means of ``metric``: a row per (scene, image), sorted, a column per value of ``columns``; all names are text."""
    table = rows.pivot_table(index=["scene", "image"], columns=columns, values=metric, observed=True)
    names = [(str(scene), str(image)) for scene, image in table.index]
    table.index = pd.MultiIndex.from_tuples(names, names=["scene", "image"])
    table.columns = table.columns.astype(str) if isinstance(columns, str) else table.columns
    return table.sort_index()


def draw_all(names: Iterable[str], inputs: Inputs, folder: Path) -> dict[str, str]:
    """Draw these figures to ``folder``/<name>.pdf and .png, and write INDEX; returns reasons of missing ones by name.

    A module of PACKAGE has TITLE, CAPTION and ``build(inputs) -> Figure``; ``about(inputs) -> str``, if it has one, is
    what the results add to the caption. Files of former figures are deleted.
    """
    index, missing = [], {}
    for name in names:
        module = load_module("figure", PACKAGE, name)
        entry = {"name": name, "title": module.TITLE, "caption": module.CAPTION}
        try:
            with styled():
                save(module.build(inputs), folder / name)
            if hasattr(module, "about"):
                entry["caption"] = f"{module.CAPTION} {module.about(inputs)}".strip()
        except Missing as reason:
            missing[name] = entry["missing"] = str(reason)
        index.append(entry)
    drawn = {entry["name"] for entry in index} - missing.keys()
    for name in {*_former(folder / INDEX), *missing} - drawn:
        for suffix in (".pdf", ".png"):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
    write_bytes(folder / INDEX, (json.dumps(index, indent=1, sort_keys=True) + "\n").encode())
    return missing


def _former(path: Path) -> set[str]:
    """Names of the figures that an INDEX lists; none of a file that is damaged or somebody else's."""
    try:
        names = [entry["name"] for entry in json.loads(path.read_bytes())]
    except (OSError, ValueError, LookupError, TypeError):
        return set()
    return {name for name in names if isinstance(name, str) and Path(name).name == name}


@contextmanager
def styled() -> Iterator[None]:
    """Figures made and saved within use STYLE; matplotlib's settings are restored afterwards."""
    with matplotlib.rc_context({"font.family": families()}, fname=STYLE):
        yield


def save(figure: Figure, path: Path) -> None:
    """``path``.png and ``path``.pdf, each by rename, without a date: the same figure gives the same bytes."""
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], metadata=metadata)
        with matplotlib.rc_context({"figure.constrained_layout.use": False}):
            figure.set_layout_engine(None)  # slow, and needed once: positions hold for both formats
        write_bytes(path.with_name(path.name + suffix), content.getvalue())


def drawn_equation(tex: str) -> bytes:
    """SVG of maths in LaTeX, as far as matplotlib sets it; the same maths gives the same bytes."""
    figure, content = Figure(figsize=(0.1, 0.1)), io.BytesIO()
    large = tex.replace(r"\frac", r"\dfrac")  # as LaTeX sets it in a line of its own
    figure.text(0, 0, f"${large}$", fontsize=12)
    with matplotlib.rc_context({"svg.hashsalt": "equation", "mathtext.fontset": "cm"}):
        figure.savefig(content, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    return content.getvalue()


def photo_style(number: int) -> tuple[str, str]:
    """Colour and marker of photo number 0, 1, ..."""
    return (
        PHOTO_COLORS[number % len(PHOTO_COLORS)],
        PHOTO_MARKERS[number // len(PHOTO_COLORS) % len(PHOTO_MARKERS)],
    )


def plain(text: str, width: int = LONGEST_NAME, longest: int = LONGEST_NAME) -> str:
    """``text`` in lines of ``width`` characters, as matplotlib draws it: no maths, and no letter that no font has.

    What goes beyond ``longest`` characters is replaced by a digest, so that different texts stay different.
    """
    text = "".join(c if font_of(c) else code_point(c) for c in visible(text))
    if len(text) > longest:
        text = f"{text[:longest]}… ({hashlib.sha256(text.encode()).hexdigest()[:8]})"
    text = f" {text}" if text.startswith("_") else text  # a legend leaves out labels that begin so
    wide = any(unicodedata.east_asian_width(c) in "WF" for c in text)
    return "\n".join(textwrap.wrap(text, width // 2 if wide else width)).replace("$", r"\$")
