"""``sweep.py --until decided``: seeds are added to the rows that seeds can decide, until none is left.

A loop of ordinary calls of an executor: the next seeds for every open comparison (for both of its rows), then a look at
what is complete. Every look stands in the ledger before the next seeds are begun, so a sweep that is ended goes on with
the same decisions. The design is that of ``analysis/looks.py``.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.decisions import intervals, take_look
from analysis.load import collect_grid
from analysis.looks import LEVEL, LOOKS
from analysis.verdicts import DECIDED, Verdict
from blurdm.core.graph import Failure, missing
from blurdm.core.ledger import Look, Until, read_ledger
from blurdm.core.runs import Resources, Run
from blurdm.core.store import read_json, write_json
from blurdm.metrics.protocols import METRICS
from experiments.budget import Budget
from experiments.display import minutes
from experiments.estimate import expected_seconds, measured
from experiments.execution import execute
from experiments.executors import resources_of
from experiments.grid import Sweep, SweepCell
from experiments.outcome import report_failures, report_outcome


class Decider:
    """The state of a sweep ``full`` of seeds, which the ledger at ``path`` keeps; ``record`` is what it has besides."""

    def __init__(self, full: Sweep, path: Path, command: str) -> None:
        self.full, self.path, self.command = full, path, command
        self.root = path.parent.parent
        self.cells: dict[str, list[SweepCell]] = {}
        for cell in full.cells:
            self.cells.setdefault(cell.row.name, []).append(cell)
        self.references = {row.name: row.reference for row in full.grid.rows if row.reference != row.name}
        self.looks = self._kept_looks()
        self.stuck: set[str] = set()  # rows whose runs did not finish in this call

    @property
    def latest(self) -> dict[str, Look]:
        return {look.row: look for look in self.looks[-1]} if self.looks else {}

    def wanted(self) -> dict[str, tuple[int, ...]]:
        """The seeds that each open comparison is looked at with next."""
        latest, wanted = self.latest, {}
        for row in self.references:
            number = next_count(latest.get(row))
            if number and row not in self.stuck:
                wanted[row] = self.full.grid.seeds[:number]
        return wanted

    def targets(self, wanted: Mapping[str, tuple[int, ...]]) -> list[Run]:
        """The measure runs of these rows and their references, references first: then row by row is complete."""
        needed = {row: set(seeds) for row, seeds in wanted.items()}
        for row, seeds in wanted.items():
            needed.setdefault(self.references[row], set()).update(seeds)
        order = sorted(needed, key=lambda row: row in self.references)
        cells = [cell for row in order for cell in self.cells[row] if cell.seed is None or cell.seed in needed[row]]
        return [cell.run for cell in cells]

    def affordable(self, wanted: Mapping[str, tuple[int, ...]], budget: Budget) -> dict[str, tuple[int, ...]]:
        """The first rows of ``wanted`` whose missing runs fit into the budget."""
        chosen: dict[str, tuple[int, ...]] = {}
        for row, seeds in wanted.items():
            tried = chosen | {row: seeds}
            if budget.runs is not None and len(missing(self.targets(tried), self.root)) > budget.runs:
                break
            chosen = tried
        return chosen

    def part(self, wanted: Mapping[str, tuple[int, ...]]) -> Sweep:
        """The sweep as far as it was looked at, and the ``wanted`` seeds; of rows never looked at, the first look's."""
        latest = self.latest
        counts = {row.name: LOOKS[0] if row.name not in self.references else 0 for row in self.full.grid.rows}
        for row, reference in self.references.items():
            seen = len(latest[row].seeds) if row in latest else LOOKS[0]
            counts[row] = max(counts[row], len(wanted.get(row, ())), seen)
            counts[reference] = max(counts[reference], counts[row])
        seeds = {row: {None, *self.full.grid.seeds[:number]} for row, number in counts.items()}
        used = max(counts.values())
        grid = replace(self.full.grid, seeds=self.full.grid.seeds[:used])
        cells = tuple(cell for cell in self.full.cells if cell.seed in seeds[cell.row.name])
        return replace(self.full, grid=grid, cells=cells)

    def write(self, wanted: Mapping[str, tuple[int, ...]], failures: Sequence[Failure] = ()) -> None:
        """The ledger of ``part``, with every look so far."""
        until = Until(counts=LOOKS, level=LEVEL, seeds=self.full.grid.seeds, looks=tuple(self.looks))
        failed = [{"stage": f.run.stage, "key": f.run.key, "message": f.message} for f in failures]
        about = {"command": self.command, "failed": failed, "until": until.model_dump(mode="json")}
        write_json(self.path, self.part(wanted).ledger() | about)

    def look(self, wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
        """Look at the rows of ``wanted`` that are complete; returns their names."""
        latest = self.latest
        look = take_look(collect_grid(self.path), tuple(latest.values()), wanted)
        new = [entry.row for entry in look if entry.row not in latest or entry.seeds != latest[entry.row].seeds]
        if new:
            self.looks.append(look)
        return new

    def _kept_looks(self) -> list[tuple[Look, ...]]:
        """The looks of an earlier call, unless runs, seeds, metric or margin have changed since."""
        if not self.path.is_file():
            return []
        ledger, grid = read_ledger(self.path), self.full.grid
        until = ledger.until
        if until is None or not until.looks:
            return []
        keys = {row: {cell.run.key for cell in cells} for row, cells in self.cells.items()}
        same = (until.counts, until.level, until.seeds) == (LOOKS, LEVEL, grid.seeds)
        same &= (ledger.primary, ledger.margin) == (grid.primary, dict(grid.margin))
        for look in until.looks[-1]:
            known = keys.get(look.row, set()) | keys.get(look.reference, set())
            same &= self.references.get(look.row) == look.reference and set(look.keys) <= known
        if not same:
            print("the earlier looks were at other runs, or by other rules: the first look is taken anew")
        return list(until.looks) if same else []


def next_count(look: Look | None) -> int | None:
    """How many seeds a comparison is looked at with next; None if no more are of use."""
    if look is None:
        return LOOKS[0]
    if look.verdict != Verdict.UNDECIDED:
        return None
    return next((number for number in LOOKS if number > len(look.seeds)), None)


def run_until(
    parsed: argparse.Namespace, full: Sweep, path: Path, command: str, executor: Any, resources: Resources
) -> int:
    """Look, add seeds to what is open, look again; returns the exit code, 0 also if the budget ends it."""
    budget, decider = Budget.parse(parsed.budget), Decider(full, path, command)
    failures: list[Failure] = []
    while wanted := decider.wanted():
        chosen = decider.affordable(wanted, budget)
        if not chosen or budget.over():
            break
        decider.write(chosen, failures)
        targets = decider.targets(chosen)
        before = len(missing(targets, parsed.runs))
        failures += execute(executor, decider.part(chosen), path, parsed, resources, targets, budget.over)
        if budget.runs is not None:
            budget.runs -= before - len(missing(targets, parsed.runs))
        seen = decider.look(chosen)
        decider.stuck |= chosen.keys() - set(seen)
        decider.write({}, failures)
        print(progress_line(decider, len(seen)), flush=True)
    decider.write({}, failures)
    for line in report(decider, parsed):
        print(line)
    is_open = bool(wanted) or any(next_count(decider.latest.get(row)) for row in decider.references)
    if is_open and budget.text and not failures:
        print(f"the budget of {budget.text} is used up; the same command continues")
        return report_failures(failures)
    return report_outcome(path, failures)


def progress_line(decider: Decider, seen: int) -> str:
    latest = decider.latest.values()
    done = sum(look.verdict in DECIDED for look in latest)
    whole, left = len(decider.references), len(decider.wanted())
    return f"look {len(decider.looks)}: {seen} comparisons; decided so far {done} of {whole}, {left} go on"


def report(decider: Decider, parsed: argparse.Namespace) -> list[str]:
    """A line per comparison with its verdict, then what was used, against all seeds for every row."""
    metric = METRICS[decider.full.grid.primary]
    lines, latest = [], decider.latest
    bounds = intervals(decider.looks[-1]) if decider.looks else {}
    for row, reference in decider.references.items():
        if (look := latest.get(row)) is None:
            lines.append(f"{row}: not looked at yet; {LOOKS[0]} seeds of it and of {reference} have to be there")
            continue
        interval = ", ".join(f"{bound:+.{metric.digits}f}" for bound in bounds[row])
        unit = f" {metric.unit}" if metric.unit else ""
        lacks = f" ({look.lacks})" if look.lacks else ""
        lines.append(
            f"{row}: {look.verdict}{lacks}; {metric.title} minus that of {reference}: {look.mean:+.{metric.digits}f}"
            f"{unit} [{interval}], p {look.corrected:.3f}, {len(look.seeds)} seeds, {look.photos} photos"
        )
    counts = {verdict: sum(look.verdict == verdict for look in latest.values()) for verdict in Verdict}
    counted = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    lines.append(f"{len(decider.references)} comparisons: {counted or 'none looked at'}")
    return [*lines, cost_line(decider, parsed)]


def cost_line(decider: Decider, parsed: argparse.Namespace) -> str:
    """Runs and hours that were used, against the design that trains all seeds of every row."""
    root = decider.root
    full, used = decider.full.runs, [run for run in decider.part({}).runs if _is_there(run, root)]
    seconds = {run.key: float(read_json(run.folder(root) / "result.json").get("seconds", 0.0)) for run in used}
    speeds = measured(root, resources_of(parsed))
    rest = expected_seconds([run for run in full if run.key not in seconds], root, speeds)
    saved = 100 * (1 - len(used) / len(full))
    spent, whole = sum(seconds.values()), sum(seconds.values()) + sum(rest.values())
    return (
        f"{len(used)} runs, {minutes(spent)} of computing; {LOOKS[-1]} seeds for every row are {len(full)} runs, about"
        f" {minutes(whole)}: {saved:.0f} % of the runs saved"
    )


def _is_there(run: Run, root: Path) -> bool:
    return (run.folder(root) / "result.json").is_file()
