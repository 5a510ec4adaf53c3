"""What is wrong is told in one line that names it, with exit code 2; what was computed before stays as it was."""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from blurdm.core.runs import Resources
from blurdm.core.store import finished, read_json
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from tests.support.tiny import REPOSITORY, Told, state_of, tiny_config, write_tiny_config


@dataclass(frozen=True)
class Case:
    """Arguments after ``blurdm``, with {root}, {data}, {config}, {runs}, {out}; what is spoilt first; what is told."""

    arguments: str
    told: tuple[str, ...]
    spoil: Callable[[Path], None] | None = None


RUN = "run prepare --config {config} --runs {runs}"
BLUR = "{motion: shake, length: [3.0, 9.0], angle: 0.0, speed_variation: 0.0, tremor: 0.0}"
IMAGE = "train/rocket/blur/0000.png"
# What is no complaint.
PROGRESS = re.compile(r".+: ((pair|step|image) \d+/\d+|decoding images once: |training on cpu )")


def spoil_odd(data: Path) -> None:
    (data / "train/rocket/sharp/0001.png").unlink()


def spoil_truncated(data: Path) -> None:
    (data / IMAGE).write_bytes((data / IMAGE).read_bytes()[:1000])


def spoil_sixteen(data: Path) -> None:
    cv2.imwrite(str(data / IMAGE), np.zeros((41, 47, 3), np.uint16))


def spoil_grey(data: Path) -> None:
    cv2.imwrite(str(data / IMAGE), np.zeros((41, 47), np.uint8))


def spoil_size(data: Path) -> None:
    cv2.imwrite(str(data / IMAGE), np.zeros((40, 47, 3), np.uint8))


def spoil_manifest(data: Path) -> None:
    path = data / "manifest.csv"
    header, first, *rest = path.read_text().splitlines()
    cells = first.split(",")
    cells[header.split(",").index("length_px")] = "long"
    path.write_text("\n".join([header, ",".join(cells), *rest]))


CASES = {
    "missing data folder": Case(f"{RUN} --set data.root={{root}}/none", ("{root}/none", "no such data folder")),
    "odd pair": Case(RUN, ("1 blurred images without sharp one", "train/rocket/blur/0001.png"), spoil_odd),
    "truncated image": Case(RUN, (IMAGE, "truncated"), spoil_truncated),
    "16-bit image": Case(RUN, (IMAGE, "more than 8 bits"), spoil_sixteen),
    "grey image": Case(RUN, (IMAGE, "grey; should be 8-bit RGB"), spoil_grey),
    "two sizes": Case(RUN, (IMAGE, "40x47", "41x47"), spoil_size),
    "bad manifest": Case(RUN, ("manifest.csv", "'long'"), spoil_manifest),
    "unknown scene": Case(f"{RUN} --set data.val_scenes=[moon]", ("data.val_scenes", "'moon'", "astronaut")),
    "crop too large": Case(
        "run baseline --config {config} --runs {runs} --set data.crop=48", ("data.crop = 48", "41x47 px", ".png")
    ),
    "unknown key": Case(f"{RUN} --set data.corp=16", ("data.corp: unknown key", "crop")),
    "text for a number": Case(f"{RUN} --set diffusion.steps='5'", ('diffusion.steps: "5"', "integer")),
    "alpha 0": Case(f"{RUN} --set diffusion.alpha_start=0", ("diffusion.alpha_start: 0", "greater than 0")),
    "unknown backbone": Case(f"{RUN} --set backbone.name=unet", ("{config}", "'unet'", "mimo_unet")),
    "missing config": Case("run prepare --config {root}/none.yaml", ("{root}/none.yaml: no such config file",)),
    "unknown stage": Case("run prepair --config {config} --runs {runs}", ("stage 'prepair'", "known: baseline")),
    "no model": Case("deblur {data}/test --out {out} --model {root}/none", ("{root}/none", "no such folder or file")),
    "unknown name": Case("deblur {data}/test --out {out} --model nane", ("model 'nane' is not known",)),
    "stage-1 model": Case("deblur {data}/test --out {out} --model {pretrain}", ("stage-1", "sharp image")),
    "stage-2 model": Case(
        "deblur {data}/test --out {out} --model {diffusion}", ("{diffusion}", "'diffusion' restores no")
    ),
    "no photos": Case("deblur {runs} --out {out} --model {baseline}", ("{runs}: holds no photo",)),
    "bad tile": Case("deblur {data}/test --out {out} --model {baseline} --tile 36", ("tile 36", "multiple of 8")),
    "bad memory": Case("deblur {data}/test --out {out} --model {baseline} --memory 2x", ("memory '2x'", "2GB")),
    "data check": Case("data check --config {config}", (IMAGE, "truncated"), spoil_truncated),
    "data check of the crop": Case(
        "data check --config {config} --set data.crop=48", ("data.crop = 48", "41x47 px", "should be at least 48")
    ),
    "data check of the crop and its blur": Case(
        "data check --config {config} --set data.crop=40 --set data.fresh_blur={blur}", ("around it for the blur",)
    ),
    "data check without validation scenes": Case(
        "data check --config {config} --set data.val_scenes=[]",
        ("data.val_scenes: [] leaves no images to validate on",),
    ),
    "no synthesis": Case("data pairs --config {config}", ("{config}", "synthesis is null")),
}


@pytest.fixture(scope="module")
def finished_runs(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    for stage in ("baseline", "diffusion"):
        run_stage(plan(tiny_config(tiny_data), stage, 0), root, Resources())
    return root


def runs_of(root: Path) -> dict[str, tuple[int, bytes]]:
    """The state of every run folder; caches, which begin with a dot, may change."""
    return {path: state for path, state in state_of(root).items() if not path.startswith(".")}


@pytest.mark.parametrize("name", CASES)
def test_wrong_input_is_told_in_one_line(
    name: str, own_data: Path, tmp_path: Path, finished_runs: Path, blurdm: Callable[..., Told]
) -> None:
    case = CASES[name]
    config = write_tiny_config(tmp_path / "tiny.yaml", own_data)
    places: dict[str, object] = {
        "root": tmp_path,
        "blur": BLUR,
        "data": own_data,
        "config": config,
        "runs": finished_runs,
        "out": tmp_path / "out",
    }
    for stage in ("baseline", "pretrain", "diffusion"):  # other cases leave unfinished ones beside them
        places[stage] = next(folder for folder in (finished_runs / stage).iterdir() if finished(folder))
    if case.spoil:
        case.spoil(own_data)
    before = runs_of(finished_runs)
    told = blurdm(*(argument.format(**places) for argument in case.arguments.split()))
    assert told.code == 2 and told.out == ""
    others = set(told.err.splitlines()) - set(told.complaints)
    assert len(told.complaints) == 1 and all(PROGRESS.match(line) for line in others), told.err
    assert all(part.format(**places) in told.complaints[0] for part in case.told), told.err
    assert {path: state for path, state in runs_of(finished_runs).items() if path in before} == before
    assert not list(tmp_path.rglob("out/**/*.png"))


def test_spoilt_weights_are_told(own_data: Path, tmp_path: Path, blurdm: Callable[..., Told]) -> None:
    run = plan(tiny_config(own_data), "baseline", 0)
    run_stage(run, tmp_path / "runs", Resources())
    weights = run.folder(tmp_path / "runs") / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    for spoilt, word in ((bytes(content), "corrupt"), (None, "missing")):
        weights.unlink()
        if spoilt:
            weights.write_bytes(spoilt)
        told = blurdm("deblur", own_data / "test", "--out", tmp_path / "out", "--model", weights.parent)
        assert told.code == 2 and told.err.startswith(f"blurdm: {weights}: {word}") and told.err.count("\n") == 1


@dataclass(frozen=True)
class Disk:
    """A place that is nearly full, and how to make room; or else ``limit``, the largest file in bytes."""

    folder: Path
    grow: Callable[[], None]
    limit: int | None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    """A file system of 1 MB where mounting is permitted, else a limit on file size, which Linux reports much alike."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        yield Disk(folder, lambda: None, 300_000)
        return
    try:
        yield Disk(folder, lambda: _mount("-o", "remount,size=64m", folder), None)
    finally:
        subprocess.run(["umount", folder], check=True)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def test_a_full_disk_is_told_and_what_was_saved_is_kept(own_data: Path, tmp_path: Path, small_disk: Disk) -> None:
    config, runs = write_tiny_config(tmp_path / "tiny.yaml", own_data), small_disk.folder / "runs"
    command: list[str | Path] = [sys.executable, "-m", "blurdm", "run", "baseline", "--config", config, "--runs", runs]

    def limited() -> None:
        if small_disk.limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (small_disk.limit, resource.RLIM_INFINITY))

    run_stage(plan(tiny_config(own_data), "prepare"), runs, Resources())
    before = runs_of(runs)
    full = subprocess.run(
        [*command, "--checkpoint-seconds", "0"], cwd=REPOSITORY, capture_output=True, text=True, preexec_fn=limited
    )
    complaints = [line for line in full.stderr.splitlines() if line.startswith("blurdm: ")]
    assert full.returncode == 2 and len(complaints) == 1 and "Traceback" not in full.stderr, full.stderr
    assert "no space left to write" in complaints[0] and str(runs) in complaints[0]
    assert {path: state for path, state in runs_of(runs).items() if path in before} == before
    run = plan(tiny_config(own_data), "baseline", 0)
    assert finished(run.folder(runs)) is None and not list(runs.rglob("*.tmp"))
    small_disk.grow()
    result = run_stage(run, runs, Resources())
    assert result == read_json(run.folder(runs) / "result.json")
    whole = run_stage(run, tmp_path / "whole", Resources())
    assert result["weights_sha256"] == whole["weights_sha256"]


WRITE = """
import sys
from pathlib import Path
from resource import RLIMIT_FSIZE, RLIM_INFINITY, setrlimit
from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes
setrlimit(RLIMIT_FSIZE, (1000, RLIM_INFINITY))
write_bytes(Path(sys.argv[1]), b"old" * 100)
try:
    write_bytes(Path(sys.argv[1]), b"new" * 1000)
except InputError as error:
    print(error)
"""


def test_a_file_that_cannot_grow_keeps_its_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    done = subprocess.run([sys.executable, "-c", WRITE, path], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}: no space left to write it; free some and start again")
    assert path.read_bytes() == b"old" * 100 and os.listdir(tmp_path) == ["a.bin"]
