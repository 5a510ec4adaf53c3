"""How long tables, figures and the check of them take over many runs with made-up results, and how much memory.

Run from the repository: ``python benchmarks/analysis_speed.py [--runs 1000] [--images 1000]``
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))  # run as a script

from analysis.artefacts import builders, read_artefacts
from analysis.drawing import Inputs, draw_all, save, styled
from analysis.formats import write_table
from analysis.grid_plot import grid_plot
from analysis.load import collect_curves
from analysis.sources import Sources
from analysis.tables.chain import difference_numbers
from analysis.tables.grid import numbers_of
from analysis.verify import verify
from blurdm.core.arms import ARMS, METHOD, MODELS, arm_of
from blurdm.core.command import Parser, run_command, whole
from blurdm.core.store import file_digest

SEEDS = (0, 1, 2)
METRICS = ("psnr", "ssim", "lpips")
GRID = "made_up"


class FakeRuns:
    """Run folders as the stages write them, below ``root``/runs."""

    def __init__(self, root: Path, images: int) -> None:
        self.root = root
        photos = -(-images // 10)
        self.names = [(f"photo{n // 10:04d}", f"{n % 10:04d}") for n in range(images)]
        self.base = np.repeat(np.random.default_rng(0).normal(28, 3, photos), 10)[:images]

    def train(self, stage: str, key: str, seed: int) -> None:
        history = [{"step": step, "loss": 1 / step, "val_psnr": 28 - 1 / step} for step in range(100, 2001, 100)]
        result = {"metrics": {}, "iterations": 2000, "seconds": 100.0}
        folder = self._folder(stage, key, {"seed": seed, "backbone": {"name": "mimo_unet", "width": 12}}, {}, result)
        (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))

    def measure(self, key: str, arm: str, gain: float, seed: int | None, model: str | None) -> None:
        rng = np.random.default_rng([seed or 0, round(1e4 * (gain + 9))])
        psnr = self.base + gain + rng.normal(0, 0.3, len(self.base))
        values = np.stack([psnr, psnr / 40, 1 / psnr], axis=1)
        restore_inputs = {"prepare": "p"} | ({"model": model} if model else {})
        self._folder("restore", f"r_{key}", {}, restore_inputs, {"metrics": {}, "arms": [arm]})
        cost = {"parameters": 350_000, "macs": 2.5e9, "seconds_per_image": 0.1, "side": 256}
        lines = [
            f"{arm},{s},{i},{a!r},{b!r},{c!r}" for (s, i), (a, b, c) in zip(self.names, values.tolist(), strict=True)
        ]
        means = {f"{arm}.{name}": mean for name, mean in zip(METRICS, values.mean(axis=0).tolist(), strict=True)}
        result = {"metrics": means, "iterations": 2000, "cost": {arm: cost} if model else {}}
        folder = self._folder(
            "measure", key, {"data": {"layout": "gopro"}}, {"prepare": "p", "restore": f"r_{key}"}, None
        )
        (folder / "per_image.csv").write_text("\n".join([",".join(["arm,scene,image", *METRICS]), *lines]) + "\n")
        _write(folder / "result.json", result | {"per_image_sha256": file_digest(folder / "per_image.csv")})

    def _folder(
        self, stage: str, key: str, sections: dict[str, Any], inputs: dict[str, str], result: dict[str, Any] | None
    ) -> Path:
        folder = self.root / "runs" / stage / key
        _write(folder / "config.json", {"stage": stage, "version": 1, "sections": sections, "inputs": inputs})
        _write(folder / "provenance.json", {"git_revision": "0" * 40, "data_digest": "d" * 64, "threads": 1})
        if result is not None:
            _write(folder / "result.json", result)
        return folder

    def chain(self) -> int:
        """A chain of three seeds; returns how many measure runs it has."""
        self.measure("e_none", arm_of(None), -2.0, None, None)
        entries: list[dict[str, Any]] = [
            {"key": "e_none", "folder": "runs/measure/e_none", "seed": None, "model": "none"}
        ]
        for number, stage in enumerate(MODELS):
            for seed in SEEDS:
                key = f"e_{stage}_{seed}"
                self.train(stage, f"{stage}_{seed}", seed)
                self.measure(key, arm_of(stage), 0.1 * number, seed, f"{stage}_{seed}")
                entries.append({"key": key, "folder": f"runs/measure/{key}", "seed": seed, "model": stage})
        _write(self.root / "chain" / "measure.json", {"runs": entries})
        return len(entries)

    def grid(self, runs: int) -> None:
        """A grid of as many rows of three seeds as make up ``runs`` measure runs."""
        rows = []
        for number in range(runs // len(SEEDS)):
            row_runs = []
            for seed in SEEDS:
                key, model = f"g_{number}_{seed}", f"j_{number}_{seed}"
                self.train(str(ARMS[METHOD].stage), model, seed)
                self.measure(key, METHOD, 0.001 * number, seed, model)
                needs = [[ARMS[METHOD].stage, model], ["restore", f"r_{key}"]]
                row_runs.append({"seed": seed, "stage": "measure", "key": key, "needs": needs})
            row = {"name": f"row {number}", "series": "", "values": {"diffusion.steps": number}, "arm": METHOD}
            rows.append(row | {"published": {}, "runs": row_runs})
        ledger: dict[str, Any] = {"grid": GRID, "question": "How fast?", "preset": "demo", "overrides": []}
        ledger |= {"seeds": list(SEEDS), "baseline": "row 0", "x": "diffusion.steps", "published_source": None}
        _write(self.root / "runs" / "sweeps" / f"{GRID}.json", ledger | {"rows": rows, "stopped": []})


def _write(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


class Stopwatch:
    """Seconds of every step: on the clock, and of this process on a core."""

    def __init__(self) -> None:
        self.steps: dict[str, tuple[float, float]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter(), time.process_time()
        yield
        self.steps[name] = time.perf_counter() - started[0], time.process_time() - started[1]


def measure(root: Path) -> dict[str, tuple[float, float]]:
    """Seconds of every step of the report over the runs below ``root``."""
    watch, reports = Stopwatch(), root / "reports"
    sources = Sources(root / "chain" / "measure.json", root / "runs")
    with watch.step("read the chain's rows"):
        rows, costs = sources.chain
    with watch.step("read the grid's rows"):
        results = sources.grid(GRID)
    tables = []
    for name, make in builders(read_artefacts(), sources).items():
        with watch.step(f"table {name}"):
            tables.append(make())
    with watch.step("write all tables, five formats"):
        for table in tables:
            write_table(table, reports / "tables")
    with watch.step("figures of the chain"):
        differences = difference_numbers(rows)
        inputs = Inputs(sources.pointer, rows, costs, collect_curves(sources.pointer), differences)
        draw_all(read_artefacts().figures, inputs, reports / "figures")
    with watch.step("figure of the grid"), styled():
        save(grid_plot(numbers_of(sources, GRID), results.ledger), reports / "figures" / GRID)
    clock, core = zip(*watch.steps.values(), strict=True)
    watch.steps["tables and figures together"] = sum(clock), sum(core)
    with watch.step("verify"):
        problems, _ = verify(reports, Sources(sources.pointer, sources.runs), root / "params.yaml")
    if problems:
        raise SystemExit("\n".join(problems))
    return watch.steps


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--runs", type=whole(1, 1_000_000), default=1000, help="measure runs")
    parser.add_argument("--images", type=whole(1, 1_000_000), default=1000, help="test images, ten of each photo")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = FakeRuns(Path(folder), options.images)
        runs.grid(options.runs - runs.chain())
        steps = measure(Path(folder))
    view = Table(title=f"{options.runs:,} runs x {options.images:,} images")
    view.add_column("step")
    view.add_column("s", justify="right")
    view.add_column("s of one core", justify="right")
    for name, seconds in steps.items():
        view.add_row(name, *(f"{value:.1f}" for value in seconds))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    Console().print(view, f"peak memory of the process: {peak:,.0f} MB")


if __name__ == "__main__":
    sys.exit(run_command("analysis_speed", main))
