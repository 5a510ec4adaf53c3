"""The main table and its paired differences: numbers first, then strings, then Markdown and LaTeX."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import metric_names, write_csv
from analysis.render import interval, markdown_table, table_environment, tabular, three_digits
from analysis.stats import mean_interval, paired_difference
from blurdm.runs import write_bytes

ABSENT = "not available"
NO_COST = "-"  # an arm that is no model of its own, or a figure that the machine cannot give
HOPEFUL_PHOTOS = 10  # below this, the caption warns that the clustered interval is too narrow


@dataclass(frozen=True)
class Arm:
    label: str
    group: str = ""


BOUND, DIAGNOSIS = "upper bound (sees the sharp image)", "diagnosis: another photo's latent"
ARMS = {
    "blurred": Arm("Blurred input"),
    "baseline": Arm("Baseline"),
    "direct": Arm("Direct control"),
    "blurdm": Arm("BlurDM"),
    "oracle": Arm("Oracle latent", BOUND),
    "blurdm_foreign": Arm("BlurDM, foreign latent", DIAGNOSIS),
    "oracle_foreign": Arm("Oracle, foreign latent", DIAGNOSIS),
}
COMPARISONS = (
    ("blurdm", "baseline"),
    ("blurdm", "direct"),
    ("direct", "baseline"),
    ("oracle", "oracle_foreign"),
    ("blurdm", "blurdm_foreign"),
)
ALWAYS = ("psnr", "ssim", "lpips")  # shown, as "not available", even where they were not measured
METRICS = {
    "psnr": ("PSNR (dB) ↑", 2),
    "ssim": ("SSIM ↑", 3),
    "lpips": ("LPIPS ↓", 4),
    "lpips_256": ("LPIPS-256 ↓", 4),
}
DIFFERENCE_COLUMNS = [
    *("metric", "a", "b", "mean", "low", "high", "narrow_low", "narrow_high"),
    *("n_images", "n_photos", "n_seeds", "won", "per_seed", "verdict"),
]
COSTS = {
    "parameters": ("Params (M)", 1e-6),
    "macs": ("MACs (G)", 1e-9),
    "seconds_per_image": ("s/image", 1.0),
    "peak_memory_mb": ("Peak (MB)", 1.0),
}


def main_numbers(rows: pd.DataFrame, costs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """A row per arm that was measured: steps, every metric as (mean, low, high), cost, counts, and keys of its runs."""
    table = []
    for arm, meaning in ARMS.items():
        mine, cost = rows[rows.arm == arm], costs[costs.arm == arm]
        if mine.empty:
            continue
        row: dict[str, object] = {"arm": arm, "label": meaning.label, "group": meaning.group}
        row |= {
            "iterations": int(mine.iterations.median()),
            "n_images": len(mine[["scene", "image"]].drop_duplicates()),
        }
        row |= {"n_photos": mine.scene.nunique(), "n_seeds": max(1, mine.seed.nunique())}
        for metric in metric_names(rows):
            interval = mean_interval(mine, metric, rng)
            values = (interval.mean, interval.low, interval.high) if interval else (np.nan,) * 3
            row |= dict(zip((metric, f"{metric}_low", f"{metric}_high"), values, strict=True))
        row |= {name: cost[name].astype(float).median() if name in cost else np.nan for name in (*COSTS, "side")}
        table.append(row | {"keys": " ".join(sorted(mine.key.unique()))})
    return pd.DataFrame(table)


def difference_numbers(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """One row per comparison and metric: mean of a - b, both intervals, per-seed means, counts, and the verdict."""
    table = []
    for metric in metric_names(rows):
        for a, b in COMPARISONS:
            found = paired_difference(rows, a, b, metric, rng)
            if found is None:
                continue
            row = {"metric": metric, "a": a, "b": b, "mean": found.mean, "low": found.low, "high": found.high}
            row |= {"narrow_low": found.narrow[0], "narrow_high": found.narrow[1]}
            row |= {"n_images": found.n_images, "n_photos": found.n_photos, "n_seeds": found.n_seeds, "won": found.won}
            row |= {"per_seed": " ".join(f"{mean:.4f}" for mean in found.per_seed)}
            table.append(row | {"verdict": "significant" if found.significant else "not resolved"})
    return pd.DataFrame(table, columns=DIFFERENCE_COLUMNS)


def main_strings(numbers: pd.DataFrame) -> pd.DataFrame:
    """The main table as it is read, one row per arm; its group is the last column."""
    shown: dict[str, Iterable[str]] = {"Method": numbers.label, "Steps": [f"{n:d}" for n in numbers.iterations]}
    for metric, (title, digits) in METRICS.items():
        if metric not in numbers and metric not in ALWAYS:
            continue
        shown[title] = [mean_text(r, metric, digits) for r in numbers.to_dict("records")]
    for name, (title, scale) in COSTS.items():
        shown[title] = [NO_COST if pd.isna(v) else three_digits(v * scale) for v in numbers[name]]
    return pd.DataFrame({**shown, "group": numbers.group})


def difference_strings(differences: pd.DataFrame) -> pd.DataFrame:
    """The paired differences as they are read: the metrics of METRICS only."""
    shown = []
    for r in differences[differences.metric.isin(METRICS)].to_dict("records"):
        title, digits = METRICS[r["metric"]]
        shown.append(
            {
                "Paired difference": comparison(r["a"], r["b"]),
                "Metric": title,
                "Mean [95 %]": interval(r["mean"], r["low"], r["high"], digits, "+"),
                "Images": str(r["n_images"]),
                "Photos": str(r["n_photos"]),
                "Seeds": str(r["n_seeds"]),
                "Won": f"{100 * r['won']:.0f} %",
                "Verdict": r["verdict"],
            }
        )
    columns = ["Paired difference", "Metric", "Mean [95 %]", "Images", "Photos", "Seeds", "Won", "Verdict"]
    return pd.DataFrame(shown, columns=columns)


def caption(numbers: pd.DataFrame, digest: str) -> str:
    """What the two blocks show, on what, and how far it carries; plain text."""
    photos, seeds = int(numbers.n_photos.max()), int(numbers.n_seeds.max())
    sentences = [
        (
            f"Test set: {int(numbers.n_images.max())} images of {count(photos, 'photo')}, data digest {digest[:12]};"
            f" {count(seeds, 'training seed')}."
        ),
        (
            "Top: mean and 95 % bootstrap interval over seeds and images; Steps are optimisation steps on images"
            f"{_cost_size(numbers)}."
        ),
        _same_steps(numbers),
        (
            "Bottom: differences paired by seed and image, interval from resampling whole photos and seeds;"
            " significant means that this interval excludes zero; Won is the share of (seed, image) pairs."
        ),
    ]
    if photos < HOPEFUL_PHOTOS:
        sentences.append(
            f"With {count(photos, 'photo')} such an interval tends to be too narrow, so read it as a hint."
        )
    if seeds == 1:
        sentences.append("With one seed it leaves out the noise of training.")
    return " ".join(sentences)


def markdown(main: pd.DataFrame, differences: pd.DataFrame, text: str) -> str:
    """Caption and both blocks; a group's name stands behind the label of its rows."""
    marked = main.assign(Method=[f"{m} *({g})*" if g else m for m, g in zip(main.Method, main.group, strict=True)])
    blocks = [markdown_table(marked.drop(columns="group")), markdown_table(differences)]
    return "\n".join([text, "", blocks[0], blocks[1]])


def latex(main: pd.DataFrame, differences: pd.DataFrame, text: str) -> str:
    r"""A table environment to \input; the document needs \usepackage{booktabs,graphicx}."""
    columns = "lr" + "c" * (main.shape[1] - len(COSTS) - 3) + "r" * len(COSTS)
    body = tabular(main.drop(columns="group"), columns, list(main.group), stacked=True)
    body += ["", r"\medskip"]
    body += tabular(differences.drop(columns="Metric"), "lcrrrrl", list(differences.Metric), stacked=False)
    return table_environment(text, "main", body)


def comparison(a: str, b: str, space: str = " ") -> str:
    """The name of the difference of two arms."""
    if b == f"{a}_foreign":
        return f"{ARMS[a].label.removesuffix(' latent')}, own{space}minus foreign latent"
    return f"{ARMS[a].label}{space}minus {ARMS[b].label.lower()}"


def write_tables(rows: pd.DataFrame, numbers: pd.DataFrame, differences: pd.DataFrame, folder: Path) -> None:
    """main.csv, differences.csv (numbers), main.md and main.tex in ``folder``, each by rename."""
    main, paired = main_strings(numbers), difference_strings(differences)
    text = caption(numbers, str(rows.data_digest.iloc[0]))
    write_csv(folder / "main.csv", numbers)
    write_csv(folder / "differences.csv", differences)
    write_bytes(folder / "main.md", markdown(main, paired, text).encode())
    write_bytes(folder / "main.tex", latex(main, paired, text).encode())


def _same_steps(numbers: pd.DataFrame) -> str:
    steps = numbers.set_index("arm").iterations
    compared = [arm for arm in ("baseline", "direct", "blurdm") if arm in steps.index]
    if len(compared) > 1 and steps[compared].nunique() == 1:
        names = " and ".join(ARMS[arm].label.lower() for arm in compared if arm != "blurdm")
        return (
            f"Trained without diffusion ({names}): {steps[compared[0]]} steps, as many as stages 1 + 3 of BlurDM"
            " together and on the same batches; BlurDM's stage 2, on latents, comes on top."
        )
    listed = ", ".join(f"{ARMS[arm].label} {steps[arm]}" for arm in compared)
    return f"The methods were NOT trained equally long ({listed} steps), so their differences mix method and training."


def count(number: int, thing: str) -> str:
    """``1 photo``, ``4 photos``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _cost_size(numbers: pd.DataFrame) -> str:
    side = numbers.side.dropna()
    return f", costs are those of one image of {side.iloc[0]:.0f} x {side.iloc[0]:.0f} px" if len(side) else ""


def mean_text(row: Mapping[str, Any], metric: str, digits: int) -> str:
    """The mean of ``metric`` in a row of numbers with its interval, or that there is none."""
    if pd.isna(row.get(metric, np.nan)):
        return ABSENT
    return interval(row[metric], row[f"{metric}_low"], row[f"{metric}_high"], digits)
