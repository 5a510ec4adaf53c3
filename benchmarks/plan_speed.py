"""Seconds to plan a grid of 10,000 rows, and to check a finished sweep of 1,000 rows. Run it as

python benchmarks/plan_speed.py
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from blurdm.core.command import Parser, count, run_command
from blurdm.core.graph import missing
from experiments.estimate import estimate
from experiments.grid import Sweep, expand, load_grid


def write_grid(folder: Path, betas: int, rates: int) -> Path:
    """A grid of ``betas`` x ``rates`` rows that share stage 1, and stage 2 where the noise is the same."""
    axes = {
        "diffusion.beta_end": [(i + 1) / 1000 for i in range(betas)],
        "joint.lr": [(i + 1) / 1000 for i in range(rates)],
    }
    tree: dict[str, Any] = {"question": "How fast is planning?", "preset": "smoke", "axes": axes}
    tree |= {"rows": betas * rates, "baseline": "beta_end=0.001, lr=0.001"}
    path = folder / f"rows_{betas * rates}.yaml"
    path.write_text(json.dumps(tree))
    return path


def plan(grid: Path, root: Path, data: Path, seeds: list[int]) -> Sweep:
    """Do what ``sweep.py plan`` does before it prints."""
    sweep = expand(load_grid(grid, overrides=[f"data.root={data}"], seeds=seeds), root / ".digests.json")
    estimate(sweep, root, max_concurrent=2)
    return sweep


def finish(sweep: Sweep, root: Path) -> None:
    """Write the folder of every run of ``sweep`` as if it had been computed."""
    for run in sweep.runs:
        folder = run.folder(root)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(run.description))
        (folder / "provenance.json").write_text('{"device": "cpu"}')
        (folder / "result.json").write_text(json.dumps({"key": run.key, "seconds": 1.0, "metrics": {"test_pairs": 2}}))


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--seeds", type=count, default=1, help="training seeds per row")
    seeds = list(range(parser.parse_args().seeds))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root, data = folder / "runs", folder / "data"
        data.mkdir()
        (data / "photo.png").write_bytes(b"any content")
        root.mkdir()
        started = time.perf_counter()
        sweep = plan(write_grid(folder, 100, 100), root, data, seeds)
        seconds = time.perf_counter() - started
        print(f"plan of {len(sweep.grid.rows):,} rows ({len(sweep.runs):,} distinct runs): {seconds:.2f} s")
        small = write_grid(folder, 100, 10)
        finish(plan(small, root, data, seeds), root)
        started = time.perf_counter()
        sweep = plan(small, root, data, seeds)
        sweep.ledger()
        left = missing((cell.run for cell in sweep.cells), root)
        seconds = time.perf_counter() - started
        print(
            f"check of a finished sweep of {len(sweep.grid.rows):,} rows: {seconds:.2f} s, {len(left)} runs to compute"
        )


if __name__ == "__main__":
    sys.exit(run_command("plan_speed", main))
