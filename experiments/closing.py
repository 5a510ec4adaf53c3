"""What ends a sweep: table and plot from its finished runs, and its rows in MLflow."""

import sys
from pathlib import Path

from rich.console import Console

from analysis.grid import build_grid


def close(ledger: Path, results: Path, reports: Path, mlflow: bool) -> None:
    """Collect, print, and send. An MLflow that is away is a line and no failure: ``collect`` sends the rest later."""
    built = build_grid(ledger, results, reports, Console())
    print(f"table and plot: {reports / 'grids' / ledger.stem}, rows: {results / ledger.stem}.csv and .parquet")
    if not mlflow:
        return
    from blurdm.tracking.sync import default_uri, sync_grid

    uri = default_uri(Path.cwd())
    report = sync_grid(ledger, uri, built.files, repo=Path.cwd(), statistics=built.statistics)
    print(f"MLflow {uri}, experiment {ledger.stem}: {len(report.sent)} sent, {len(report.already)} were there")
    for reason in report.failed:
        print(f"MLflow: not sent ({reason}); send it later with: sweep.py collect", file=sys.stderr)
