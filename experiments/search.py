"""A search: samples until there are as many as asked for, then an ordinary grid of the best, for test images."""

import argparse
import json
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from blurdm.core.arms import STAGES
from blurdm.core.config import Config
from blurdm.core.errors import InputError
from blurdm.core.graph import Failure
from blurdm.core.runs import Resources
from blurdm.core.signals import StopFlag
from blurdm.core.store import locked, write_bytes, write_json
from blurdm.stages.plan import Planner
from experiments.executors import max_concurrent
from experiments.search_display import SearchDisplay
from experiments.search_space import Search, base_grid, load_search

if TYPE_CHECKING:
    from experiments.samples import Cost
    from experiments.study import Study

AGAINST = {"macs": "GMAC of a 256 x 256 image", "seconds": "seconds of a 256 x 256 image"}
SUFFIX, BEST = ".search", "best.yaml"  # of the folder beside the ledger; in it, the grid of the best samples
SAMPLES, TOP = 20, 3


def check_search(parsed: argparse.Namespace) -> None:
    """Set defaults of the options of a search; InputError for one without --search, or that another contradicts."""
    if not parsed.search:
        for name in ("samples", "against", "top"):
            if getattr(parsed, name):
                raise InputError(f"--{name}: only with --search")
        return
    parsed.samples, parsed.top = parsed.samples or SAMPLES, parsed.top or TOP
    if parsed.detach:
        raise InputError("--detach: a search waits for its samples; leave it out")
    if parsed.scheduler and parsed.against:
        raise InputError(f"--against {parsed.against}: --scheduler {parsed.scheduler} judges by PSNR alone; drop one")


def find_best(
    parsed: argparse.Namespace, path: Path, ledger: Path, record: dict[str, Any], executor: Any, resources: Resources
) -> tuple[argparse.Namespace, list[Failure]]:
    """Compute what is missing of the samples; returns the command that measures the best of them, and the failures that
    no sample is to blame for: those samples stay open, and are computed when the search is started again.

    ``record``: the ledger of the base config alone, for as long as the best are not known.
    """
    from experiments.samples import Samples  # Optuna, which planning does without
    from experiments.study import Study

    search = load_search(path, parsed.preset, parsed.set, parsed.seeds)
    _check_scheduler(parsed.scheduler, search)
    folder, root = ledger.with_suffix(SUFFIX), parsed.runs
    planner = Planner(root / ".digests.json")
    base = planner.plan(search.base, search.stage, search.seed).key
    with StopFlag() as stop, locked(folder, lambda owner: print(f"waiting for {owner}", flush=True), stop):
        study = Study(folder, parsed.search, search.seed, AGAINST.get(parsed.against), search.space)
        study.require_identity(base, folder)
        if not ledger.is_file():
            write_json(ledger, record)
        display = SearchDisplay(parsed.samples, max_concurrent(parsed))
        cost = _cost(parsed.against, search.stage, resources) if parsed.against else None
        samples = Samples(search, study, planner, root, parsed.samples, cost, display)
        with display:
            if parsed.executor == "ray":
                samples.stream(executor, resources, stop)
            else:
                samples.batches(executor, resources, stop, max_concurrent(parsed))
        draw(ledger, parsed.reports)
        if not samples.failures:
            write_best(search, study, parsed.top, base, folder / BEST)
    options = {"grid": str(folder / BEST), "name": ledger.stem, "scheduler": None}
    options |= dict.fromkeys(("search", "samples", "against", "top"))
    return argparse.Namespace(**vars(parsed) | options), samples.failures


def _check_scheduler(scheduler: str | None, search: Search) -> None:
    """InputError if ``scheduler`` could not compare the samples of ``search``."""
    if scheduler is None:
        return
    from experiments.executors.ray_worker import ASHA_STAGE

    if search.stage != ASHA_STAGE:
        raise InputError(f"--scheduler {scheduler}: stops runs of {ASHA_STAGE}, and samples are of {search.stage}")
    for key in (f"{ASHA_STAGE}.iterations", f"{ASHA_STAGE}.validate_every"):
        if key in search.space:
            raise InputError(f"--scheduler {scheduler}: axes: {key}: samples should be of one length; drop one of both")


def write_best(search: Search, study: "Study", top: int, base: str, path: Path) -> None:
    """Write the grid of the ``top`` samples to ``path``; InputError if no sample has a value."""
    best = {}
    for trial in study.best(top, without=base):
        settings = search.settings(trial.params)
        values = ", ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in settings.items())
        best[f"sample {trial.number}: {values}"] = settings
    if not best:
        reasons = study.reasons() or ["all are the base config"]
        raise InputError(f"{path.parent}: no sample to compare with the base config: {reasons[0]}")
    base_grid(search, best)
    text = StringIO()
    writer: Any = YAML(typ="safe")
    writer.width = 10_000  # no value on a line of its own, however long
    writer.sort_base_mapping_type_on_output = False
    writer.dump(json.loads(search.best_file(best).model_dump_json(exclude_defaults=True)), text)
    write_bytes(path, text.getvalue().encode())


def draw(ledger: Path, reports: Path) -> None:
    """Write figures and the table of samples of the search beside ``ledger``, if there is one."""
    folder = ledger.with_suffix(SUFFIX)
    if not folder.is_dir():
        return
    from analysis.search import write_study  # pandas and matplotlib
    from experiments.study import load_study

    target = reports / "grids" / ledger.stem
    write_study(load_study(folder), target)
    print(f"samples and figures of the search: {target}")


def search_state(ledger: Path) -> str:
    """One line on the search beside ``ledger``; empty if there is none."""
    folder = ledger.with_suffix(SUFFIX)
    if not folder.is_dir():
        return ""
    from experiments.study import describe_best, load_study, told

    trials = load_study(folder).trials
    ended = told(trials)
    best = describe_best(trials)
    return f"search: {ended} samples done, {len(trials) - ended} open{best and f', {best}'}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _cost(against: str, stage: str, resources: Resources) -> "Cost":
    """What restoring a 256 x 256 image costs the network that ``stage`` trains: GMACs, or seconds on this machine."""
    import torch

    from blurdm.models.build import initialise
    from blurdm.models.cost import measure_cost
    from blurdm.models.network import Network
    from blurdm.stages.devices import require_device, use_device

    device = resources.device if against == "seconds" else "cpu"
    require_device(device)
    use_device(device)

    def cost(config: Config) -> float:
        torch.set_num_threads(resources.threads)
        kind: Any = STAGES[stage].trains
        network = Network(kind, config.backbone, config.latent, config.diffusion)
        initialise(network, 0)
        measured = measure_cost(network.eval().to(device), device)
        return float(measured["macs"] / 1e9 if against == "macs" else measured["seconds_per_image"])

    return cost
