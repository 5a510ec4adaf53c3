"""``blurdm run``: one stage of the chain for every seed, and what DVC shares of it."""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from blurdm.cli.display import Display
from blurdm.core.arms import MODELS, STAGES, TRAINED, arm_of
from blurdm.core.command import PARAMS, config_pointer, require_file_to_write, require_folder_to_write
from blurdm.core.config_io import load_config
from blurdm.core.errors import one_line
from blurdm.core.exported import CHAIN, export_run, recreate_runs
from blurdm.core.graph import distinct, missing
from blurdm.core.pinned import provide_pinned
from blurdm.core.registry import require
from blurdm.core.runs import Resources, Run
from blurdm.core.signals import StopFlag
from blurdm.core.store import finished, read_json, write_json
from blurdm.data.photos.synthesised import provide_pairs
from blurdm.metrics.foreign import PREFIX
from blurdm.restore.trained_on import KEY, blur_of
from blurdm.stages.adopt import reasons_to_compute
from blurdm.stages.devices import choose_device, visible_gpus
from blurdm.stages.plan import ON_TEST_PAIRS, check, plan_all, unmeasurable
from blurdm.stages.pool import run_all
from blurdm.tracking.started import Following

FORMER_STAGES = {"evaluate": "measure"}


def run_chain(parsed: argparse.Namespace) -> int:
    """Make every run of ``parsed.stage`` exist, then write its pointer, metrics and export; InputError."""
    stage = current_stage(parsed.stage)
    _check_places(parsed, stage)
    config = load_config(parsed.config, parsed.set, warn)
    check(config, str(parsed.config))
    chain = parsed.pointer.parent if parsed.pointer else CHAIN
    provide_pinned(config, warn)
    provide_pairs(config, chain, warn)
    runs = plan_all(config, stage, parsed.seeds or config.seeds, parsed.runs / ".digests.json")
    for folder in recreate_runs(parsed.runs, chain, {run.key for run in distinct(runs)}):
        warn(f"{folder}: made from what DVC shares")
    for line in [*unmeasurable(runs), *reasons_to_compute(runs, parsed.runs)]:
        warn(line)
    _require_foreign(missing(runs, parsed.runs))
    cache, rows = parsed.runs / ".frames", parsed.runs / ".rows"
    resources = Resources(
        parsed.device, parsed.threads, parsed.checkpoint_seconds, cache, ranks=parsed.ranks, rows=rows
    )
    jobs = parsed.jobs or default_jobs(len(runs), parsed.device, parsed.ranks)
    trains = any(run.stage in TRAINED for run in missing(runs, parsed.runs)) and not parsed.no_mlflow
    following = Following(["--runs", str(parsed.runs.absolute())]) if trains else nullcontext()
    with following, StopFlag() as stop, Display({run.key: label(run) for run in runs}) as display:
        failures = run_all(runs, parsed.runs, resources, jobs, stop, display)
    for failure in failures:
        message = one_line(failure.message) if failure.expected else failure.message
        print(f"blurdm: {label(failure.run)}: {message}", file=sys.stderr)
    if failures:
        return 2 if all(failure.expected for failure in failures) else 1
    for run in runs:
        metrics = (finished(run.folder(parsed.runs)) or {}).get("metrics", {})
        figures = " ".join(f"{name}={value:.4g}" for name, value in metrics.items())
        print(f"{label(run)}: {run.folder(parsed.runs)} {figures}")
    exports = export(runs, parsed.runs, parsed.export, blur_of(config)) if parsed.export else {}
    own = parsed.config.name != PARAMS.name and parsed.pointer is None
    pointer = config_pointer(parsed.runs, parsed.config, stage) if own else parsed.pointer
    if pointer:
        write_pointer(pointer, stage, runs, parsed.runs, exports)
    if own and stage == "measure":
        print(f"table, differences, figures: python -m analysis.build --config {parsed.config}")
    return 0


def _check_places(parsed: argparse.Namespace, stage: str) -> None:
    """InputError for a stage, a device and places that would fail only after work was done."""
    require("stage", stage, STAGES)
    parsed.device = choose_device(parsed.device, parsed.ranks)
    require_folder_to_write("--runs", parsed.runs)
    if parsed.pointer:
        require_file_to_write("--pointer", parsed.pointer)
        require_file_to_write("--pointer", parsed.pointer.parent / "metrics" / parsed.pointer.name)
    if parsed.export:
        require_folder_to_write("--export", parsed.export)


def _require_foreign(runs: Iterable[Run]) -> None:
    """InputError for a metric of pyiqa that cannot be computed here, before anything is trained to be measured."""
    measured = (run.sections["measure"].metrics for run in runs if run.stage == "measure")
    names = sorted({name for metrics in measured for name in metrics if name.startswith(PREFIX)})
    if names:
        from blurdm.metrics.measure import make_measure

        make_measure(names, "standard")


def warn(line: str) -> None:
    print(f"blurdm: {line}", file=sys.stderr)


def current_stage(name: str) -> str:
    """The present name of a stage; warns if ``name`` is a former one."""
    if name not in FORMER_STAGES:
        return name
    warn(f"stage '{name}' is now '{FORMER_STAGES[name]}', which needs 'restore'")
    return FORMER_STAGES[name]


def default_jobs(runs: int, device: str, ranks: int = 1) -> int:
    """As many runs as have a GPU for each rank; on a CPU all of few: three seeds on two cores balance better so."""
    if device == "cuda":
        return max(1, min(runs, len(visible_gpus()) // ranks))
    if device != "cpu" or ranks > 1:
        return 1
    cores = os.cpu_count() or 1
    return runs if runs <= 2 * cores else cores


def label(run: Run) -> str:
    """Name of a run for people: stage, model behind it, seed."""
    if run.model is not None:
        return f"{run.stage} {run.model.stage} seed {run.model.seed}"
    return run.stage if run.seed is None else f"{run.stage} seed {run.seed}"


def write_pointer(
    path: Path, stage: str, runs: list[Run], root: Path, exports: Mapping[str, tuple[Path, str]] | None = None
) -> None:
    """Write the run folders of ``stage`` and digests of their results, and beside it metrics for DVC: means over seeds.

    ``exports``: place and digest of each run's export, by key. Equal computations write equal files (no times), so that
    DVC sees equal results as equal.
    """
    rows: list[dict[str, Any]] = []
    metrics: dict[str, list[float]] = {}
    for run in runs:
        folder = run.folder(root)
        result = read_json(folder / "result.json")
        place = folder if folder.is_absolute() else os.path.relpath(folder, path.parent.parent)
        row = {"stage": run.stage, "key": run.key, "folder": str(place), "seed": run.seed}
        if stage in ON_TEST_PAIRS:
            row |= {"seed": run.model.seed, "model": run.model.stage} if run.model else {"model": "none"}
        row |= {name: digest for name, digest in result.items() if name in ("weights_sha256", "images_sha256")}
        if exports:
            place, digest = exports[run.key]
            row |= {"export": os.path.relpath(place, path.parent.parent), "digest": digest}
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


def export(runs: list[Run], root: Path, target: Path, trained_on: str) -> dict[str, tuple[Path, str]]:
    """Export ``runs`` below ``target``, for DVC to version and share; returns place and digest of each by its key.

    The folder of a trained run is called seed<N>, that of restored or measured images after the model. ``trained_on``
    is noted with networks that restore.
    """
    exports = {}
    for run in runs:
        if run.model is not None:
            name = f"{run.model.stage}_seed{run.model.seed}"
        elif run.seed is not None:
            name = f"seed{run.seed}"
        else:
            name = arm_of(None) if run.stage in ON_TEST_PAIRS else "data"
        about = {KEY: trained_on} if run.stage in MODELS else {}
        exports[run.key] = target / name, export_run(run.folder(root), target / name, about)
    return exports
