"""``python -m analysis.build``: collect a chain's results, then make and print the report's tables and figures."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from analysis.gallery import choose, gallery
from analysis.load import collect_curves, evaluate_runs, write_csv, write_results
from analysis.plots import paired_differences, save, training_curves
from analysis.render import command, show
from analysis.tables import (
    COSTS,
    caption,
    difference_numbers,
    difference_strings,
    main_numbers,
    main_strings,
    write_tables,
)

BOOTSTRAP_SEED = 0  # the intervals are part of the report, so the same results give the same digits


def build(pointer: Path, results: Path, reports: Path, console: Console) -> None:
    """Tables in ``reports``/tables, figures in ``reports``/figures, ``reports``/curves.csv; prints the tables."""
    rows, costs = write_results(pointer, results)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    numbers, differences = main_numbers(rows, costs, rng), difference_numbers(rows, rng)
    write_tables(rows, numbers, differences, reports / "tables")
    curves = collect_curves(pointer)
    write_csv(reports / "curves.csv", curves)
    save(training_curves(curves), reports / "figures" / "training")
    save(paired_differences(rows, differences), reports / "figures" / "differences")
    shown = main_strings(numbers)
    costs_shown = [title for title, _ in COSTS.values()]
    show(shown.drop(columns=[*costs_shown, "group"]), list(shown.group), console)
    show(shown[["Method", *costs_shown]], None, console)
    paired = difference_strings(differences)
    show(paired.drop(columns="Metric"), list(paired.Metric), console)
    console.print(caption(numbers, str(rows.data_digest.iloc[0])), highlight=False)
    _restorations(pointer, rows, reports, console)


def _restorations(pointer: Path, rows: pd.DataFrame, reports: Path, console: Console) -> None:
    """The gallery of the first seed; said, not failed, when the runs saved no images."""
    seeds = rows.seed.dropna().unique()
    first = min(seeds) if len(seeds) else None
    folders = [folder for entry, folder in evaluate_runs(pointer) if entry["seed"] in (None, first)]
    chosen = choose(rows[rows.seed.isna() | (rows.seed == first)], folders)
    if chosen:
        save(gallery(chosen), reports / "figures" / "restorations")
    else:
        console.print("no gallery: the evaluate runs saved no images of every column", highlight=False)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.build", description=__doc__)
    parser.add_argument("--pointer", type=Path, default=Path("chain/evaluate.json"))
    return command(parser, arguments, lambda o: build(o.pointer, o.results, o.reports, Console()))


if __name__ == "__main__":
    sys.exit(main())
