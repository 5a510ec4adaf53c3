"""The canonical chain as ``blurdm run`` and DVC drive it: one stage, every seed, and where its results are."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from blurdm.cli.display import Display
from blurdm.core.config_io import load_config
from blurdm.core.ledger import read_ledger
from blurdm.core.runs import Resources, Run
from blurdm.core.signals import StopFlag
from blurdm.core.store import finished, read_json, write_bytes, write_json
from blurdm.stages.plan import check, plan_all, unmeasurable
from blurdm.stages.pool import run_all


def run_canonical(parsed: argparse.Namespace, stop: StopFlag) -> int:
    """Make every run of ``parsed.stage`` exist, then write its pointer, metrics and export; InputError."""
    config = load_config(parsed.config, parsed.set)
    check(config, str(parsed.config))
    runs = plan_all(config, parsed.stage, parsed.seeds or config.seeds, parsed.runs / ".digests.json")
    for line in unmeasurable(runs):
        print(f"blurdm: {line}", file=sys.stderr)
    cache = parsed.runs / ".frames"
    resources = Resources(parsed.device, parsed.threads, parsed.checkpoint_seconds, cache, ranks=parsed.ranks)
    jobs = parsed.jobs or (1 if parsed.ranks > 1 else default_jobs(len(runs), parsed.device))
    with Display({run.key: label(run) for run in runs}) as display:
        failures = run_all(runs, parsed.runs, resources, jobs, stop, display)
    for failure in failures:
        print(f"blurdm: {label(failure.run)}: {failure.message}", file=sys.stderr)
    if failures:
        return 2 if all(failure.expected for failure in failures) else 1
    for run in runs:
        print(f"{label(run)}: {run.folder(parsed.runs)} {_figures(finished(run.folder(parsed.runs)) or {})}")
    if parsed.pointer:
        write_pointer(parsed.pointer, parsed.stage, runs, parsed.runs)
    if parsed.export:
        export(runs, parsed.runs, parsed.export)
    return 0


def default_jobs(runs: int, device: str) -> int:
    """One process per GPU; on a CPU all of few runs at once: three seeds on two cores balance better so."""
    if device != "cpu":
        return 1
    cores = os.cpu_count() or 1
    return runs if runs <= 2 * cores else cores


def label(run: Run) -> str:
    """What a person calls this run: its stage, the model that it measures, and its seed."""
    model = run.inputs.get("model")
    if isinstance(model, Run):
        return f"{run.stage} {model.stage} seed {model.seed}"
    return run.stage if run.seed is None else f"{run.stage} seed {run.seed}"


def _figures(result: dict[str, Any]) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in result.get("metrics", {}).items())


def write_pointer(path: Path, stage: str, runs: list[Run], root: Path) -> None:
    """Where the runs of ``stage`` are, and the sha256 of their weights; and beside it metrics for DVC: mean over seeds.

    Holds nothing that differs between two equal computations (no times), so that DVC sees equal results as equal.
    """
    rows: list[dict[str, Any]] = []
    metrics: dict[str, list[float]] = {}
    for run in runs:
        model = run.inputs.get("model")
        folder = run.folder(root)
        result = read_json(folder / "result.json")
        row = {"stage": run.stage, "key": run.key, "folder": str(folder), "seed": run.seed}
        if stage == "evaluate":
            row |= (
                {"seed": model.seed, "model": model.stage}
                if isinstance(model, Run)
                else {"seed": None, "model": "none"}
            )
        if "weights_sha256" in result:
            row["weights_sha256"] = result["weights_sha256"]
        rows.append(row)
        for name, value in result["metrics"].items():
            metrics.setdefault(name, []).append(value)
    write_json(path, {"stage": stage, "runs": rows})
    means = {name: sum(values) / len(values) for name, values in metrics.items()}
    write_json(path.parent / "metrics" / path.name, _nested(means))


def _nested(flat: dict[str, float]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def export(runs: list[Run], root: Path, target: Path) -> None:
    """Copy what restores photos (weights, config, checksum) to ``target``/seed<N>, for DVC to version and share."""
    for run in runs:
        source, folder = run.folder(root), target / f"seed{run.seed}"
        result = read_json(source / "result.json")
        result.pop("seconds")
        for name in ("weights.safetensors", "config.json"):
            write_bytes(folder / name, (source / name).read_bytes())
        write_json(folder / "result.json", result)


def track(runs: Path, experiment: str, reports: Path, chain: Path, out: Path | None) -> int:
    """Send what is finished to MLflow: the chain to ``experiment``, every grid to its own. A server that is away is a
    line, not a failure: the rest can be sent later.
    """
    from blurdm.tracking.sync import default_uri, sync, sync_grid

    uri, repo = default_uri(Path.cwd()), Path.cwd()
    files = [p for p in reports.rglob("*") if p.suffix in {".tex", ".md", ".csv", ".png"}]
    grids = reports / "grids"
    ledgers = sorted((runs / "sweeps").glob("*.json"))
    swept = {key for ledger in ledgers for row in read_ledger(ledger).rows for _, key in row.addresses}
    canonical = {run["key"] for pointer in chain.glob("*.json") for run in read_json(pointer).get("runs", [])}
    own = sorted(file for file in files if grids not in file.parents)
    reported = {experiment: sync(runs, uri, experiment, own, repo=repo, skip=swept - canonical)}
    for ledger in ledgers:
        reported[ledger.stem] = sync_grid(ledger, uri, sorted((grids / ledger.stem).glob("[!.]*")), repo=repo)
    for name, report in reported.items():
        print(f"MLflow {uri}, experiment {name}: {len(report.sent)} runs sent, {len(report.already)} were there")
        for reason in report.failed:
            print(f"MLflow: not sent ({reason}); send it later with: blurdm track", file=sys.stderr)
    if out:
        write_json(out, {"pending": any(report.failed for report in reported.values())})
    return 0
