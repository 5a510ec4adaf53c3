"""Finished runs whose code has changed since: which files changed, and how to keep the results all the same.

A refactoring changes the keys of runs and not their results. ``adopt`` declares finished runs equal under today's code:
a new key, the same content. A cheap check comes first: the first steps, or the first image, once more.
"""

import csv
import json
import math
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from blurdm.core.arms import STAGES, TRAINED
from blurdm.core.code import changed_files, code_digest, file_digests
from blurdm.core.config import Config
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.exported import WORKING
from blurdm.core.graph import distinct
from blurdm.core.key import key_of
from blurdm.core.progress import Notify, Progress
from blurdm.core.runs import Resources, Run, StoredRun, finished_folders, model_folder, stored_run
from blurdm.core.store import file_digest, finished, provenance, read_json, write_json

CHECK_STEPS = 10
TOLERANCE = 1e-3  # relative, on another machine than the run was made on; on the same one nothing may differ
SHOWN = 3  # files in a message
BROKEN = (
    InputError,
    AttributeError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)  # what reading a damaged run folder may raise


def reasons_to_compute(runs: Iterable[Run], root: Path) -> list[str]:
    """A line per stage that is computed again only since its code changed: which files, and since which run."""
    lines: dict[str, None] = {}
    fingerprint = cache(partial(_fingerprint, root))
    for run in distinct(runs):
        if finished(run.folder(root)) is not None:
            continue
        same = [folder for folder in finished_folders(root, run.stage) if fingerprint(folder) == _planned(run)]
        for folder in sorted(same, key=lambda folder: folder.stat().st_mtime)[-1:]:
            if files := _changed_since(folder, file_digests(STAGES[run.stage].code, run.backbone)):
                lines[f"{run.stage}: computed again: {files}; `blurdm runs adopt` keeps results"] = None
    return list(lines)


def adopt(
    root: Path, stages: Collection[str], places: Mapping[str, str], resources: Resources, notify: Notify
) -> tuple[int, int]:
    """Adopt every finished run of ``stages`` below ``root`` whose key is not that of today's code.

    ``places``: the folder of each data set by its digest. Returns how many runs were adopted and how many refused;
    ``notify`` receives a line for each.
    """
    current: dict[str, str] = {}  # key -> the key under today's code, of runs that exist under it
    stale: set[str] = set()  # keys of runs that do not
    adopted = refused = 0
    for stage in STAGES:
        for folder in sorted(finished_folders(root, stage), key=lambda f: f.stat().st_mtime, reverse=True):
            try:
                description = _description(folder, root, current)
            except BROKEN as error:
                refused += 1
                notify(f"{folder}: not adopted: {_damage(error)}")
                continue
            target = root / stage / key_of(description)
            if not stale.isdisjoint(description["inputs"].values()):
                stale.add(folder.name)
            elif finished(target) is not None:
                current[folder.name] = target.name
            elif stage not in stages:
                stale.add(folder.name)
            elif problem := _reason_to_refuse(folder, description, root, places, resources):
                stale.add(folder.name)
                refused += 1
                notify(f"{folder}: not adopted: {problem}")
            else:
                files = _copy(folder, target, description, root)
                current[folder.name] = target.name
                adopted += 1
                notify(f"{folder}: adopted as {target.name} ({files or 'its inputs were adopted'})")
    return adopted, refused


def _planned(run: Run) -> str:
    inputs = {name: _planned(value) if isinstance(value, Run) else value for name, value in run.inputs.items()}
    return key_of({"stage": run.stage, "sections": run.description["sections"], "inputs": inputs})


def _fingerprint(root: Path, folder: Path) -> str | None:
    """The key of the run in ``folder`` without any code in it, nor in its inputs; None if it is damaged."""
    try:
        described = read_json(folder / "config.json")
        inputs = {}
        for name, key in described["inputs"].items():
            source = _input_folder(root, name, key)
            inputs[name] = _fingerprint(root, source) if source else key
        return key_of({"stage": described["stage"], "sections": described["sections"], "inputs": inputs})
    except BROKEN:
        return None


def _input_folder(root: Path, name: str, key: str) -> Path | None:
    """The folder of an input run; None for a digest of data, or if it is gone."""
    if name == "model":
        return model_folder(root, key)
    folder = root / name / key
    return folder if name in STAGES and folder.is_dir() else None


def _description(folder: Path, root: Path, current: Mapping[str, str]) -> dict[str, Any]:
    """The description of the run in ``folder`` under today's code, with its inputs' keys under today's code."""
    described = read_json(folder / "config.json")
    code = described.get("code")
    if code != "":  # an imported model depends on no code
        code = code_digest(STAGES[described["stage"]].code, _backbone(described["sections"], folder, root))
    inputs = {name: current.get(key, key) for name, key in described["inputs"].items()}
    return {"stage": described["stage"], "sections": described["sections"], "inputs": inputs, "code": code}


def _backbone(sections: Mapping[str, Any], folder: Path, root: Path) -> str | None:
    """The backbone of a stored run: its own, or that of the run that it goes on from (see ``Run.backbone``)."""
    if "backbone" in sections:
        return str(sections["backbone"]["name"])
    inputs = read_json(folder / "config.json")["inputs"]
    names = (name for name in ("pretrain", "model", "restore") if name in inputs)
    sources = (_input_folder(root, name, inputs[name]) for name in names)
    source = next((folder for folder in sources if folder), None)
    return _backbone(read_json(source / "config.json")["sections"], source, root) if source else None


def _changed_since(folder: Path, code: Mapping[str, str]) -> str:
    """The files that changed since the run in ``folder`` was made, in words; empty if none did."""
    try:
        files = changed_files(read_json(folder / "provenance.json")["code"], code)
    except BROKEN:
        return f"{folder} was made by an earlier release"
    if not files:
        return ""
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return f"{', '.join(files[:SHOWN])}{more} changed since {folder}"


def _reason_to_refuse(folder: Path, *others: Any) -> str | None:
    try:
        return _problem(folder, *others)
    except BROKEN as error:  # one damaged folder keeps no other from being adopted
        return _damage(error)


def _damage(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"damaged ({type(error).__name__}: {error})"


def _problem(
    folder: Path, description: Mapping[str, Any], root: Path, places: Mapping[str, str], resources: Resources
) -> str | None:
    """Why the run must not be adopted, in words; None if its first steps or image come out as they did."""
    for name, key in description["inputs"].items():
        if name in (*STAGES, "model") and (_input_folder(root, name, key) is None):
            return f"its input {name} {key} is gone"
    if "init" in description["inputs"]:
        return "it started from other weights, whose place it does not know; train it again"
    stored = stored_run(folder)
    prepared = folder if stored.stage == "prepare" else root / "prepare" / description["inputs"]["prepare"]
    raw = read_json(prepared / "config.json")["inputs"]["raw"]
    if raw not in places:
        return "its data set is not there to check it; name it by --data"
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix=".adopt-") as temporary:
            out = Path(temporary, str(key_of(description)))
            again = _begin(stored, description, root, out, places[raw], resources)
            return _difference(stored, folder, out, again, _same_machine(folder, resources))
    except (InputError, RuntimeError, ValueError, TypeError, KeyError) as error:
        return f"today's code does not run it ({' '.join(str(error).split())[:200]})"


def _begin(
    stored: StoredRun, description: Mapping[str, Any], root: Path, out: Path, place: str, resources: Resources
) -> dict[str, Any] | None:
    """Compute the first steps, or the first image, of a run again into ``out``; its result if that was all of it."""
    from blurdm.stages.run import call_stage

    unstated = set(STAGES[stored.stage].reads) - stored.sections.keys()  # at their legacy defaults
    sections = {name: Config.model_fields[name].default for name in unstated} | dict(stored.sections)
    sections["data"] = sections["data"].model_copy(update={"root": place})
    folders = {name: _input_folder(root, name, key) for name, key in description["inputs"].items()}
    run = Run(stored.stage, sections, {}, str(description["code"]))
    write_json(out / "config.json", description)
    done = 0

    def count(progress: Progress) -> None:
        nonlocal done
        done = max(done, progress.step)

    enough = CHECK_STEPS if stored.stage in TRAINED else 1
    resources = replace(resources, stop=lambda: stored.stage != "prepare" and done >= enough, rows=None)
    try:
        return call_stage(run, {name: f for name, f in folders.items() if f}, out, resources, count)
    except StopRequested:
        return None


def _difference(stored: StoredRun, folder: Path, out: Path, again: dict[str, Any] | None, exact: bool) -> str | None:
    """How what was computed again differs from what the run stored, in words; None if it does not."""
    match stored.stage:
        case "prepare":
            same = read_json(out / "index.json") == read_json(folder / "index.json")
            return None if same else "its index comes out otherwise"
        case "restore":
            return _other_images(folder / "images", out / "images")
        case "measure":
            pairs = _measured_pairs(folder, out)
        case _:
            pairs = _logged_pairs(folder, out)
    if not pairs:
        return "there is nothing to compare"
    for name, before, after in pairs:
        if before != after and (exact or not math.isclose(before, after, rel_tol=TOLERANCE)):
            return f"{name} comes out as {after!r}, was {before!r}"
    return None


def _logged_pairs(folder: Path, out: Path) -> list[tuple[str, float, float]]:
    """Losses of the first logged step, before and now."""
    before, after = ((path / "history.jsonl").read_text(encoding="utf-8").splitlines() for path in (folder, out))
    if not before or not after:
        return []
    rows = json.loads(before[0]), json.loads(after[0])
    names = rows[0].keys() & rows[1].keys() - {"phase", "images_per_s"}
    return [(f"{name} at step {rows[1]['step']}", rows[0][name], rows[1][name]) for name in sorted(names)]


def _measured_pairs(folder: Path, out: Path) -> list[tuple[str, float, float]]:
    """Values of the first image, before and now."""
    with open(folder / "per_image.csv", encoding="utf-8", newline="") as file:
        before = {(row["arm"], f"{row['scene']}/{row['image']}"): row for row in csv.DictReader(file)}
    return [
        (f"{metric} of {arm}, image {image}", float(before[arm, image][metric]), value)
        for line in (out / "partial.jsonl").read_text(encoding="utf-8").splitlines()
        for image, arms in json.loads(line).items()
        for arm, values in arms.items()
        for metric, value in values.items()
    ]


def _other_images(before: Path, after: Path) -> str | None:
    files = sorted(after.rglob("*.png"))
    if not files:
        return "no restored image was kept to compare"
    other = [file for file in files if file_digest(file) != file_digest(before / file.relative_to(after))]
    return f"{other[0].relative_to(after)} comes out otherwise" if other else None


def _same_machine(folder: Path, resources: Resources) -> bool:
    before, now = read_json(folder / "provenance.json"), provenance(resources)
    same = all(before.get(name) == now[name] for name in ("packages", "threads", "ranks", "device"))
    return same and before.get("hardware", {}).get("cpu") == now["hardware"]["cpu"] and now["device"] == "cpu"


def _copy(folder: Path, target: Path, description: Mapping[str, Any], root: Path) -> str:
    """Make ``target`` of the run in ``folder`` (files are shared by hard links); returns what changed, in words."""
    code = file_digests(STAGES[description["stage"]].code, _backbone(description["sections"], folder, root))
    files = _changed_since(folder, code)
    temporary = Path(tempfile.mkdtemp(dir=root, prefix=".adopt-"))
    try:
        ignore = shutil.ignore_patterns(*WORKING)
        shutil.copytree(folder, temporary, ignore=ignore, copy_function=_link, dirs_exist_ok=True)
        origin = read_json(folder / "provenance.json")
        write_json(temporary / "config.json", description)
        write_json(
            temporary / "provenance.json",
            origin | {"code": code, "adopted": {"from": folder.name, "code": origin.get("code"), "changed": files}},
        )
        write_json(temporary / "result.json", read_json(folder / "result.json") | {"key": target.name})
        shutil.rmtree(target, ignore_errors=True)  # unfinished
        target.parent.mkdir(parents=True, exist_ok=True)
        os.chmod(temporary, folder.stat().st_mode)
        os.rename(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return files


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
    return target
