"""The chain's tables: what every arm measured, and paired differences of arms."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.load import metric_names
from analysis.sources import Sources, origin_note
from analysis.stats import LEVEL, Block, Difference, Resamples, block, difference_of, holm, mean_of
from analysis.table import Cell, Column, Row, Table, finish, interval_cell, one_protocol, protocols, value_cell
from blurdm.metrics.protocols import METRICS as MEASURES


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
ALWAYS = ("psnr", "ssim", "lpips")  # shown, as missing, even where they were not measured
METRICS = {
    "psnr": ("PSNR (dB) ↑", 2),
    "ssim": ("SSIM ↑", 3),
    "lpips": ("LPIPS ↓", 4),
    "lpips_256": ("LPIPS-256 ↓", 4),
    "dists": ("DISTS ↓", 4),
    "niqe": ("NIQE ↓", 3),
    "musiq": ("MUSIQ ↑", 2),
}
COSTS = {
    "parameters": ("Params (M)", 1e-6),
    "macs": ("MACs (G)", 1e-9),
    "seconds_per_image": ("s/image", 1.0),
    "peak_memory_mb": ("Peak (MB)", 1.0),
}
SIGNIFICANT, NOT_RESOLVED = "significant", "not resolved"
INTERVALS = (
    "Intervals: 95 % over photos and training seeds (hierarchical bootstrap, stretched to the length that Student's t"
    " asks for with so few of them)."
)
DIFFERENCES = (
    "p: corrected for the number of rows compared (Holm); significant: p < 0.05. d: mean by the standard deviation over"
    " photos. Detectable: the smallest true difference that would be found in 80 % of such experiments."
)


def metric_column(metric: str) -> Column:
    """The column of our values of ``metric``."""
    title = METRICS.get(metric, (metric, 4))[0].rstrip(" ↑↓")
    name, _, unit = title.partition(" (")
    lower = MEASURES[metric].lower_better if metric in MEASURES else False
    return Column(metric, name, unit=unit.rstrip(")"), better="lower" if lower else "higher")


def digits_of(metric: str) -> int:
    return METRICS.get(metric, ("", 4))[1]


def blocks(rows: pd.DataFrame, by: str, metrics: list[str]) -> dict[str, Block]:
    """The block of every arm, or of every value of another column."""
    return {str(name): block(mine, metrics, str(name)) for name, mine in rows.groupby(by, sort=False, observed=True)}


def main_table(name: str, title: str, sources: Sources) -> Table:
    """A row per arm of the chain: steps, every metric with its interval, and the cost."""
    rows, costs = sources.chain
    metrics = [m for m in METRICS if m in (*ALWAYS, *metric_names(rows))]
    metrics += [m for m in metric_names(rows) if m not in metrics]
    measured = blocks(rows, "arm", [m for m in metrics if m in rows])
    columns = [Column("iterations", "Steps"), *map(metric_column, metrics)]
    columns += [Column(cost, heading.partition(" (")[0], unit=_unit(heading)) for cost, (heading, _) in COSTS.items()]
    told = {m: protocols(rows.dropna(subset=[m])) if m in rows else set() for m in metrics}
    protocol = one_protocol(told, name)
    lines = []
    for arm in (arm for arm in ARMS if arm in measured):
        mine, cost = rows[rows.arm == arm], costs[costs.arm == arm]
        keys = mine.key.unique()
        cells = {"iterations": value_cell(int(mine.iterations.median()), 0, runs=keys)}
        for metric in (m for m in metrics if m in rows):
            cells[metric] = interval_cell(mean_of(measured[arm], metric, sources.resamples), digits_of(metric), keys)
        cells |= {figure: cost_cell(cost, figure) for figure in COSTS}
        lines.append(Row(arm, ARMS[arm].label, cells, ARMS[arm].group, ranked=not ARMS[arm].group))
    sentences = [origin_note(rows, sources, protocol), INTERVALS, f"Steps are those on images{_side(costs)}."]
    sentences += [same_steps(rows), *_one_seed(rows), "Best in bold, second underlined; bound and diagnoses aside."]
    return finish(Table(name, title, " ".join(sentences), protocol, tuple(columns), tuple(lines), "Method"))


def differences_table(name: str, title: str, sources: Sources) -> Table:
    """A row per comparison and metric of the chain."""
    rows, _ = sources.chain
    protocol = one_protocol({m: protocols(rows.dropna(subset=[m])) for m in metric_names(rows)}, name)
    keys = {arm: mine.key.unique() for arm, mine in rows.groupby("arm")}
    columns = (
        Column("mean", "Mean [95 %]"),
        Column("p", "p"),
        Column("effect", "d"),
        Column("detectable", "Detectable"),
        Column("won", "Won", unit="%"),
        Column("n", "Images/photos/seeds", "label"),
        Column("verdict", "Verdict", "label"),
    )
    lines = []
    for found, p in differences(rows, sources.resamples):
        runs = (*keys[found.a], *keys[found.b])
        shown = difference_cells(found, p, runs)
        shown["n"] = Cell(f"{found.n_images}/{found.n_photos}/{found.n_seeds}", runs=tuple(sorted(runs)))
        heading = metric_column(found.metric).heading if found.metric in METRICS else found.metric
        lines.append(
            Row(f"{found.a}-{found.b}-{found.metric}", comparison(found.a, found.b), shown, heading, ranked=False)
        )
    note = f"{origin_note(rows, sources, protocol)} Paired by seed and image. {INTERVALS} {DIFFERENCES}"
    won = " Won: share of (seed, image) pairs in which the first is better."
    return finish(Table(name, title, note + won, protocol, columns, tuple(lines), "Paired difference"))


def difference_cells(found: Difference, p: float, runs: tuple[str, ...]) -> dict[str, Cell]:
    """mean, p, effect, detectable, won and verdict of a difference, with the corrected ``p``."""
    digits = digits_of(found.metric)
    return {
        "mean": interval_cell(found, digits, runs, "+"),
        "p": p_cell(p, runs),
        "effect": value_cell(found.effect, 2, "+", runs),
        "detectable": value_cell(found.detectable if np.isfinite(found.detectable) else np.nan, digits, "", runs),
        "won": value_cell(100 * found.won, 0, "", runs),
        "verdict": Cell(verdict(p), runs=tuple(sorted(set(runs)))),
    }


def p_cell(p: float, runs: tuple[str, ...]) -> Cell:
    cell = value_cell(p, 3, "", runs)
    return Cell("< 0.001", p, runs=cell.runs) if p < 0.001 else cell


def verdict(p: float) -> str:
    return SIGNIFICANT if p < LEVEL else NOT_RESOLVED


def differences(rows: pd.DataFrame, resamples: Resamples) -> list[tuple[Difference, float]]:
    """Every comparison of every metric, with its p corrected for the comparisons in that metric."""
    metrics = metric_names(rows)
    measured = blocks(rows, "arm", metrics)
    pairs = [(a, b) for a, b in COMPARISONS if a in measured and b in measured]
    found = []
    for metric in metrics:
        mine = [difference_of(measured[a], measured[b], metric, resamples) for a, b in pairs]
        told = [difference for difference in mine if difference is not None]
        found += list(zip(told, holm([difference.p for difference in told]), strict=True))
    return found


def difference_numbers(rows: pd.DataFrame, resamples: Resamples) -> pd.DataFrame:
    """The same as numbers, for figures: metric, a, b, mean, low, high, p (corrected), effect, detectable, verdict."""
    names = [
        "metric",
        "a",
        "b",
        "mean",
        "low",
        "high",
        "effect",
        "detectable",
        "won",
        "n_images",
        "n_photos",
        "n_seeds",
    ]
    found = [
        {name: getattr(difference, name) for name in names} | {"p": p, "verdict": verdict(p)}
        for difference, p in differences(rows, resamples)
    ]
    return pd.DataFrame(found, columns=[*names, "p", "verdict"])


def cost_cell(cost: pd.DataFrame, figure: str, scale: float | None = None) -> Cell:
    """The median over runs of a cost figure, with three digits; missing where no run could give it."""
    values = cost[figure].astype(float).dropna() if figure in cost else pd.Series(dtype=float)
    if values.empty:
        return Cell()
    value = float(values.median()) * (COSTS[figure][1] if scale is None else scale)
    return Cell(three_digits(value), value, runs=tuple(sorted(cost.key[values.index].unique())))


def three_digits(value: float) -> str:
    """Three significant digits, never in exponential notation above a millionth."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(abs(value)))))}f}"


def comparison(a: str, b: str, space: str = " ") -> str:
    """The name of the difference of two arms."""
    if b == f"{a}_foreign":
        return f"{ARMS[a].label.removesuffix(' latent')}, own{space}minus foreign latent"
    return f"{ARMS[a].label}{space}minus {ARMS[b].label.lower()}"


def same_steps(rows: pd.DataFrame) -> str:
    """Whether the methods were trained equally long."""
    steps = rows.groupby("arm").iterations.median()
    compared = [arm for arm in ("baseline", "direct", "blurdm") if arm in steps.index]
    if len(compared) > 1 and steps[compared].nunique() == 1:
        names = " and ".join(ARMS[arm].label.lower() for arm in compared if arm != "blurdm")
        return (
            f"Trained without diffusion ({names}): {steps[compared[0]]:.0f} steps, as many as stages 1 + 3 of BlurDM"
            " together and on the same batches; BlurDM's stage 2, on latents, comes on top."
        )
    listed = ", ".join(f"{ARMS[arm].label} {steps[arm]:.0f}" for arm in compared)
    return f"The methods were NOT trained equally long ({listed} steps), so their differences mix method and training."


def count(number: int, thing: str) -> str:
    """``1 photo``, ``4 photos``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _one_seed(rows: pd.DataFrame) -> list[str]:
    one = rows.seed.nunique() <= 1
    return ["With one seed, intervals leave out the noise of training."] if one else []


def _unit(heading: str) -> str:
    return heading.partition(" (")[2].rstrip(")")


def _side(costs: pd.DataFrame) -> str:
    side = costs.side.dropna() if "side" in costs else pd.Series(dtype=float)
    return f"; costs are those of one image of {side.iloc[0]:.0f} x {side.iloc[0]:.0f} px" if len(side) else ""
