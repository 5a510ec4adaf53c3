"""``python -m analysis.compare A B``: where A is better than B: by blur, brightness and noise, and image by image."""

import argparse
import sys
from pathlib import Path

import pandas as pd
from rich.console import Console

from analysis.conditions import CONDITIONS, conditions
from analysis.drawing import by_image, save, styled
from analysis.load import write_csv
from analysis.pictures import find
from analysis.sources import Sources
from analysis.tables.table import identifier
from analysis.terminal import add_sources, command, say
from analysis.where import PICTURED, PicturedPair, correlations, where_figure
from blurdm.core.arms import ARMS
from blurdm.core.command import Parser
from blurdm.core.errors import InputError
from blurdm.core.registry import require
from blurdm.core.runs import restore_folder
from blurdm.metrics.protocols import METRICS

MOST = 5  # images each way that are printed


def compare(sources: Sources, names: tuple[str, str], grid: str | None, metric: str, folder: Path) -> list[str]:
    """``folder``/<a>-<b>.csv, .png and .pdf; returns what to print. InputError for a method that was not measured."""
    require("--metric", metric, METRICS)
    rows, column = _rows(sources, grid)
    for name in names:
        require("method", name, list(dict.fromkeys(rows[column].astype(str))))
    if metric not in rows or rows[rows[column].isin(names)][metric].isna().any():
        raise InputError(f"--metric {metric}: not measured of {names[0]} and {names[1]}")
    values = by_image(rows[rows[column].isin(names)], metric, column)[list(names)].dropna()
    gains = (values[names[0]] - values[names[1]]).sort_values(kind="stable")
    keys = {name: list(map(str, rows[rows[column] == name].key.unique())) for name in names}
    known = conditions(sources.folder(key) for key in keys[names[0]])
    stem = folder / f"{identifier(names[0])}-{identifier(names[1])}"
    write_csv(stem.with_suffix(".csv"), gains.rename("difference").to_frame().join(known).reset_index())
    label = f"{METRICS[metric].title} of {names[0]} minus {names[1]}"
    arms = {name: str(rows[rows[column] == name].arm.iloc[0]) for name in names}
    kept = [_pictured(sources, keys, arms, image, gain) for image, gain in gains.items()]
    shown = [pair for pair in kept if pair is not None]
    ends = shown[::-1][:PICTURED], shown[: min(PICTURED, max(0, len(shown) - PICTURED))][::-1]
    with styled():
        save(where_figure(gains, known, label, ends), stem)
    return [*_lines(gains, known, label, metric), f"images and figure: {stem}.csv, .png, .pdf"]


def _rows(sources: Sources, grid: str | None) -> tuple[pd.DataFrame, str]:
    """Per-image rows, and the column that names the methods: arms of the chain, or rows of a grid."""
    return (sources.chain[0], "arm") if grid is None else (sources.grid(grid).rows, "row")


def _pictured(
    sources: Sources, keys: dict[str, list[str]], arms: dict[str, str], image: object, gain: float
) -> PicturedPair | None:
    """The kept pictures of an image, of each method's first run; None if one was not kept."""
    scene, name = image if isinstance(image, tuple) else ("", str(image))
    files = {}
    for method, own in keys.items():
        file = find([restore_folder(sources.folder(key)) for key in own], arms[method], str(scene), str(name))
        if file is None:
            return None
        files[method] = file
    return PicturedPair(f"{scene}/{name}", float(gain), files)


def _lines(gains: pd.Series, known: pd.DataFrame, label: str, metric: str) -> list[str]:
    """The correlations, and the images most apart."""
    about = METRICS[metric]
    lines = [f"{label}: mean {gains.mean():+.{about.digits}f} {about.unit} over {len(gains)} images"]
    for name, rho in correlations(gains, known).items():
        lines.append(f"rank correlation with {CONDITIONS[name]}: {'does not vary' if pd.isna(rho) else f'{rho:+.2f}'}")
    absent = [title for name, title in CONDITIONS.items() if name not in known]
    lines += [f"not known of these images: {', '.join(absent)}"] if absent else []
    for title, part in (("largest", gains[::-1]), ("smallest", gains)):
        images = (f"{'/'.join(map(str, image))} {gain:+.{about.digits}f}" for image, gain in part.head(MOST).items())
        lines.append(f"{title}: {', '.join(images)}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m analysis.compare", description=__doc__)
    parser.add_argument("a", metavar="A", help=f"an arm of the chain ({', '.join(ARMS)}), or a row of the grid")
    parser.add_argument("b", metavar="B", help="what it is compared with")
    parser.add_argument("--grid", metavar="NAME", help="the sweep that A and B are rows of")
    parser.add_argument("--metric", default="psnr", help="psnr unless given")
    add_sources(parser)

    def make(options: argparse.Namespace) -> None:
        sources = Sources(options.pointer, options.runs)
        folder = options.reports / "compare" / (options.grid or "")
        for line in compare(sources, (options.a, options.b), options.grid, options.metric, folder):
            say(line, Console(), soft_wrap=True)

    return command(parser, arguments, make)


if __name__ == "__main__":
    sys.exit(main())
