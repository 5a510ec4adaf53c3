"""``run_stage``: the only way anything is ever computed."""

import importlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from blurdm.core.allocator import keep_freed_memory
from blurdm.core.arms import STAGES, TRAINED
from blurdm.core.code import file_digests
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.gpus import gpus_of
from blurdm.core.places import on_this_machine
from blurdm.core.progress import OnProgress, Progress, ignore_progress
from blurdm.core.runs import Resources, Run, never
from blurdm.core.store import HEARTBEAT, finished, locked, provenance, read_json, write_heartbeat, write_json
from blurdm.stages.devices import gpu_origin, use_device
from blurdm.stages.live import LiveLog
from blurdm.stages.plan import batch_sizes, check_index, largest_crops
from blurdm.training.image_loss import require_losses
from blurdm.training.launch import Work, run_distributed
from blurdm.training.memory import require_memory

Inputs = Mapping[str, Path]
Launch = Callable[[Work, Sequence[Any], Resources, OnProgress], Any]
"""Starts the ranks of a run, as ``run_distributed`` does on this machine."""
HEARTBEAT_SECONDS = 1.0


def run_stage(
    run: Run,
    root: Path,
    resources: Resources,
    on_progress: OnProgress = ignore_progress,
    launch: Launch = run_distributed,
) -> dict[str, Any]:
    """Make ``run`` exist below ``root`` and return its result; at once if it does. Missing inputs are made first.

    A run folder is worked in by one process at a time; a run that was killed continues from its checkpoint.
    StopRequested when ``resources.stop`` says so, InputError for wrong inputs, RankEnded if one of several ranks dies.
    """
    folder = run.folder(root)
    result = finished(folder)
    if result is not None:
        return result
    for needed in run.inputs.values():
        if isinstance(needed, Run):
            run_stage(needed, root, resources, on_progress, launch)
    with locked(folder, lambda owner: on_progress(Progress(0, 1, note=f"waiting for {owner}")), resources.stop):
        result = finished(folder)
        return result if result is not None else _compute(run, root, folder, resources, on_progress, launch)


def join_stage(run: Run, root: Path, resources: Resources, launch: Launch) -> None:
    """Take part in the ``run`` of a process on another machine, which has its folder: nothing is written."""
    call_stage(run, _inputs(run, root), run.folder(root), _usable(run, resources), ignore_progress, launch)


def _usable(run: Run, resources: Resources) -> Resources:
    """The part of ``resources`` that ``run`` uses, with places of this machine; InputError if a GPU is too small."""
    resources = resources.for_stage(run.stage)
    if resources.cache is not None:
        resources = replace(resources, cache=on_this_machine(resources.cache))
    if run.stage in TRAINED and (gpus := gpus_of(resources.device, resources.ranks)):
        smallest = min(gpus, key=lambda gpu: gpu.memory)
        require_memory(run, resources, smallest.memory, smallest.name)
    return resources


def _inputs(run: Run, root: Path) -> dict[str, Path]:
    return {name: i.folder(root) for name, i in run.inputs.items() if isinstance(i, Run)}


def _compute(
    run: Run, root: Path, folder: Path, resources: Resources, on_progress: OnProgress, launch: Launch
) -> dict[str, Any]:
    resources = _usable(run, resources)
    write_json(folder / "config.json", run.description)
    origin = provenance(resources)
    inputs = _inputs(run, root)
    started = time.monotonic()
    try:
        # Other stages save before they stop; this one has nothing to save.
        stop = resources.stop if run.stage == "prepare" else never
        with LiveLog(folder, resources.device, resources.ranks) as live:
            outcome = call_stage(run, inputs, folder, resources, _watched(folder, on_progress, stop, live), launch)
    finally:
        (folder / HEARTBEAT).unlink(missing_ok=True)
    origin["hardware"] |= gpu_origin(resources.device)
    origin |= {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "data_digest": read_json(inputs.get("prepare", folder) / "index.json")["digest"],
        "code": file_digests(STAGES[run.stage].code, run.backbone),
    }
    write_json(folder / "provenance.json", origin)
    result = {"stage": run.stage, "key": run.key, "seconds": round(time.monotonic() - started, 2), **outcome}
    write_json(folder / "result.json", result)
    return result


def call_stage(
    run: Run,
    inputs: Inputs,
    out: Path,
    resources: Resources,
    on_progress: OnProgress,
    launch: Launch = run_distributed,
) -> dict[str, Any]:
    """What the stage's function returns, on as many ranks as asked for; InputError if it cannot train to its end."""
    module, _, name = STAGES[run.stage].function.partition(":")
    function = getattr(importlib.import_module(module), name)
    sections = run.typed_sections()
    if run.stage in TRAINED:
        _require_ready(run, inputs, resources.ranks)
    keep_freed_memory()
    use_device(resources.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(resources.threads)
    try:
        outcome: dict[str, Any]
        if resources.ranks == 1:
            outcome = function(sections, inputs, out, resources, on_progress)
        else:
            outcome = launch(function, (sections, inputs, out), resources, on_progress)
        return outcome
    finally:
        torch.set_num_threads(threads)


def _require_ready(run: Run, inputs: Inputs, ranks: int) -> None:
    """InputError, before anything is computed, for what a phase of the stage would fail on.

    A batch that does not divide by ranks and micro-batches, an image smaller than a crop, a loss without its weights.
    """
    parts = run.sections["compute"].micro_batches
    shared = f"{ranks} ranks" + (f" x {parts} micro-batches" if parts > 1 else "")
    for key, size in batch_sizes(run.sections):
        if size % (ranks * parts):
            raise InputError(f"{key}: {size} does not divide by {shared}; should be a multiple of that")
    check_index(read_json(inputs["prepare"] / "index.json"), run.sections["data"], largest_crops(run.sections))
    if "loss" in run.sections:
        require_losses(run.sections["loss"])


def _watched(folder: Path, on_progress: OnProgress, stop: Callable[[], bool], live: LiveLog) -> OnProgress:
    """``on_progress`` that also tells ``live``, and leaves a heartbeat in ``folder``, at most once a second.

    StopRequested by ``stop``.
    """
    last = -math.inf

    def report(progress: Progress) -> None:
        nonlocal last
        if stop():
            raise StopRequested(f"stopped at {progress.unit} {progress.step} of {progress.total}")
        live.add(progress)
        now = time.monotonic()
        if now - last >= HEARTBEAT_SECONDS:
            last = now
            write_heartbeat(folder, progress)
        on_progress(progress)

    return report
