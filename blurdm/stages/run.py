"""What each stage does, and ``run_stage``, the only way anything is ever computed."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blurdm.core.allocator import keep_freed_memory
from blurdm.core.config import Optimisation
from blurdm.core.errors import InputError
from blurdm.core.progress import Progress, ignore_progress
from blurdm.core.runs import Resources, Run
from blurdm.core.store import HEARTBEAT, beat, finished, locked, provenance, read_json, write_json
from blurdm.data.cache import Frames
from blurdm.data.layouts import count_report, scan
from blurdm.data.splits import build_index
from blurdm.models.build import to_channels_last
from blurdm.models.network import Network
from blurdm.models.precision import describe, matmul_precision
from blurdm.stages.evaluation import evaluate
from blurdm.training.batches import TrainingData, notify
from blurdm.training.checkpoint import save_weights
from blurdm.training.distributed import rank
from blurdm.training.image import image_module, image_phases, warmup_phases
from blurdm.training.joint import joint_network, joint_phases, steps_before
from blurdm.training.launch import run_distributed
from blurdm.training.loop import Loop, Phase
from blurdm.training.prior import prior_phases

OnProgress = Callable[[Progress], None]
Inputs = Mapping[str, Path]
Metrics = dict[str, Any]
Train = Callable[[Run, Inputs, Path, Resources, OnProgress], Metrics]
HEARTBEAT_SECONDS = 1.0
TRAINED = ("baseline", "direct", "pretrain", "diffusion", "joint")  # the stages that several ranks share


def run_stage(run: Run, root: Path, resources: Resources, on_progress: OnProgress = ignore_progress) -> dict[str, Any]:
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
            run_stage(needed, root, resources, on_progress)
    with locked(folder, lambda owner: on_progress(Progress(0, 1, note=f"waiting for {owner}")), resources.stop):
        result = finished(folder)
        return result if result is not None else _compute(run, root, folder, resources, on_progress)


def _compute(run: Run, root: Path, folder: Path, resources: Resources, on_progress: OnProgress) -> dict[str, Any]:
    if run.stage not in TRAINED:
        resources = replace(resources, ranks=1)
    write_json(folder / "config.json", run.description)
    origin = provenance(resources)
    inputs = {name: i.folder(root) for name, i in run.inputs.items() if isinstance(i, Run)}
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(resources.threads)
    started = time.monotonic()
    try:
        metrics = _metrics(run, inputs, folder, resources, _beating(folder, on_progress))
    finally:
        torch.set_num_threads(threads)
        (folder / HEARTBEAT).unlink(missing_ok=True)
    origin |= {"finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "data_digest": _data_digest(folder, inputs)}
    write_json(folder / "provenance.json", origin)
    result = {"stage": run.stage, "key": run.key, "seconds": round(time.monotonic() - started, 2), **metrics}
    write_json(folder / "result.json", result)
    return result


def _metrics(run: Run, inputs: Inputs, out: Path, resources: Resources, on_progress: OnProgress) -> Metrics:
    """What the stage's function returns, on as many ranks as asked for; InputError if they cannot share a batch."""
    if resources.ranks == 1:
        return FUNCTIONS[run.stage](run, inputs, out, resources, on_progress)
    section = getattr(run.sections, run.stage)
    parts = run.sections.compute.micro_batches
    shared = f"{resources.ranks} ranks" + (f" x {parts} micro-batches" if parts > 1 else "")
    sizes = {"data.batch_size": run.sections.data.batch_size}
    if getattr(section, "warmup_iterations", 0):
        sizes[f"{run.stage}.warmup_batch_size"] = section.warmup_batch_size
    for name, size in sizes.items():
        if size % (resources.ranks * parts):
            raise InputError(f"{name}: {size} does not divide by {shared}; should be a multiple of that")
    return run_distributed(FUNCTIONS[run.stage], (run, inputs, out), resources, on_progress)


def _beating(folder: Path, on_progress: OnProgress) -> OnProgress:
    """``on_progress`` that also leaves a heartbeat in ``folder``, at most once a second."""
    last = -math.inf

    def tell(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= HEARTBEAT_SECONDS:
            last = now
            beat(folder, progress)
        on_progress(progress)

    return tell


def _data_digest(folder: Path, inputs: Inputs) -> str:
    prepared = inputs.get("prepare", folder)
    digest: str = read_json(prepared / "index.json")["digest"]
    return digest


def in_arithmetic(train: Train) -> Train:
    """``train`` with products and convolutions as its config says."""

    @wraps(train)
    def trained(run: Run, inputs: Inputs, out: Path, resources: Resources, on_progress: OnProgress) -> Metrics:
        with matmul_precision(run.sections.compute, resources.device):
            return train(run, inputs, out, resources, on_progress)

    return trained


def prepare(run: Run, inputs: Inputs, out: Path, resources: Resources, on_progress: OnProgress) -> Metrics:
    """Check every pair of the data folder and split them by scene: index.json."""
    data = run.sections.data

    def report(done: int, total: int) -> None:
        on_progress(Progress(done, total, unit="pair"))

    index = build_index(Path(data.root), data.layout, data.val_scenes, report)
    write_json(out / "index.json", index)
    counts = {split: sum(pair["split"] == split for pair in index["pairs"]) for split in ("train", "val", "test")}
    for split in ("train", "val"):
        if resources.cache is not None and counts[split]:
            # what every training will need; it would decode it itself
            Frames.load(index, Path(data.root), split, resources.cache, partial(notify, on_progress))
    for line in count_report(scan(Path(data.root), data.layout), data.layout):
        on_progress(Progress(1, 1, unit="pair", note=line))
    return {"metrics": {f"{split}_pairs": count for split, count in counts.items()}, "data_digest": index["digest"]}


def baseline(run: Run, inputs: Inputs, out: Path, resources: Resources, on_progress: OnProgress) -> Metrics:
    """The backbone without prior."""
    return _train_on_images(run, inputs, out, resources, on_progress)


def direct(run: Run, inputs: Inputs, out: Path, resources: Resources, on_progress: OnProgress) -> Metrics:
    """The control: the same encoder on the blurred image feeds the backbone."""
    return _train_on_images(run, inputs, out, resources, on_progress)


def pretrain(run: Run, inputs: Inputs, out: Path, resources: Resources, on_progress: OnProgress) -> Metrics:
    """Stage 1: sharp encoder and backbone, with the oracle latent."""
    return _train_on_images(run, inputs, out, resources, on_progress)


@in_arithmetic
def _train_on_images(run: Run, inputs: Inputs, out: Path, resources: Resources, on_progress: OnProgress) -> Metrics:
    sections = run.sections
    kind: Any = run.stage
    section = getattr(sections, kind)
    data = TrainingData.open(inputs["prepare"], sections.data, sections.seed, resources, on_progress)
    network = Network(kind, sections.backbone, None if kind == "baseline" else sections.latent, None)
    module = image_module(network, sections.seed).to(data.device)
    phases: list[Phase] = []
    if kind != "baseline":
        assert network.prior is not None and isinstance(module["head"], nn.Linear)
        phases = warmup_phases(network.prior, module["head"], kind, data, section)
    scale = 1.0 if kind == "baseline" else section.encoder_lr_scale
    phases += image_phases(network, data, sections.loss, sections.compute, section.phases, scale)
    trained = _loop(module, phases, section, run, out, resources, on_progress)
    return _trained(trained["network"], out, sum(iterations for iterations, _ in section.phases))


@in_arithmetic
def diffusion(run: Run, inputs: Inputs, out: Path, resources: Resources, on_progress: OnProgress) -> Metrics:
    """Stage 2: blur encoder and estimators, against the frozen sharp encoder."""
    sections = run.sections
    data = TrainingData.open(inputs["prepare"], sections.data, sections.seed, resources, on_progress)
    generator, phases = prior_phases(sections, inputs["pretrain"], data)
    trained = _loop(generator, phases, sections.diffusion, run, out, resources, on_progress)
    return _trained(trained, out, 0)


@in_arithmetic
def joint(run: Run, inputs: Inputs, out: Path, resources: Resources, on_progress: OnProgress) -> Metrics:
    """Stage 3: backbone and prior generator together."""
    sections = run.sections
    data = TrainingData.open(inputs["prepare"], sections.data, sections.seed, resources, on_progress)
    network = joint_network(sections, inputs, data)
    phases = joint_phases(network, sections, inputs, data)
    trained = _loop(nn.ModuleDict({"network": network}), phases, sections.joint, run, out, resources, on_progress)
    return _trained(trained["network"], out, steps_before(inputs) + sections.joint.iterations)


def _loop(
    module: Any,
    phases: list[Phase],
    section: Optimisation,
    run: Run,
    out: Path,
    resources: Resources,
    on_progress: OnProgress,
) -> Any:
    if not rank():
        notify(on_progress, describe(run.sections.compute, resources))
    loop = Loop(
        to_channels_last(module),
        phases,
        section,
        key=run.key,
        seed=run.seed or 0,
        out=out,
        resources=resources,
        on_progress=on_progress,
        compute=run.sections.compute,
    )
    return loop.run()


def _trained(module: nn.Module, out: Path, iterations: int) -> Metrics:
    """Store the weights; ``iterations`` counts the optimisation steps on images, those of earlier stages included."""
    if rank():
        return {}
    measured = [
        row for line in (out / "history.jsonl").read_text().splitlines() if "val_psnr" in (row := json.loads(line))
    ]
    digest = save_weights(out, module)
    metrics = {"loss": measured[-1]["loss"], "val_psnr": measured[-1]["val_psnr"]}
    return {"metrics": metrics, "iterations": iterations, "weights_sha256": digest}


FUNCTIONS: dict[str, Train] = {
    "prepare": prepare,
    "baseline": baseline,
    "direct": direct,
    "pretrain": pretrain,
    "diffusion": diffusion,
    "joint": joint,
    "evaluate": evaluate,
}
