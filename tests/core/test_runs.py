"""Keys follow exactly what a stage reads; run folders are written whole, and by one process at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

from blurdm.core.arms import MODELS, STAGES, TRAINED
from blurdm.core.config import CameraMotion, Config, Course, Degradation, Inference, Section, Term
from blurdm.core.errors import InputError
from blurdm.core.runs import Resources, stored_section
from blurdm.core.store import finished, read_json, write_bytes, write_json
from blurdm.data.pairs import read_image, write_image
from blurdm.stages.plan import plan, plan_all
from tests.support.tiny import REPOSITORY, tiny_config

TESTED = ("restore", "measure")
ROWS = [(stage, None) for stage in STAGES] + [(stage, model) for stage in TESTED for model in MODELS]
OPTIONAL = ("synthesis", "test")  # may be null; no stage reads them
SECTIONS = [name for name, field in Config.model_fields.items() if name != "seeds"]


def fields() -> list[tuple[str, str]]:
    """Every field of every section that a stage reads, but those that are places."""
    config = tiny_config(Path("/data"))
    known = {name: type(getattr(config, name)).model_fields for name in SECTIONS if name not in OPTIONAL}
    return [(section, name) for section, names in known.items() for name in names if name not in ("root", "init")]


def row_name(row: tuple[str, str | None]) -> str:
    return "-".join(part for part in row if part)


def key(config: Config, row: tuple[str, str | None], seed: int = 0) -> str:
    stage, model = row
    return plan(config, stage, seed, model).key


@cache
def keys(config: Config) -> list[str]:
    return [key(config, row) for row in ROWS]


@cache
def reads(row: tuple[str, str | None]) -> frozenset[str]:
    """The sections that a stage or any stage before it declares."""
    stage, model = row
    if stage == "measure":
        return frozenset(STAGES[stage].reads) | reads(("restore", model))
    before = [(need, None) for need in STAGES[stage].needs] + ([(model, None)] if model else [])
    return frozenset(STAGES[stage].reads).union(*(reads(earlier) for earlier in before))


def another(annotation: Any, value: Any) -> Any:
    """A different value of the same kind that is valid wherever the smoke preset's is."""
    options = [o for o in get_args(annotation) if isinstance(o, (str, int)) and not isinstance(o, bool)]
    if options:
        return next(o for o in options if o != value)
    if value == () and Term in get_args(annotation):
        return (Term(name="edge", weight=0.05),)
    if value == ():
        return get_args(get_args(annotation)[0])[:1]
    if value is None and CameraMotion in get_args(annotation):
        return CameraMotion(motion="pan", length=(1.0, 2.0), angle=1.0, speed_variation=0.1, tremor=0.0)
    if value is None and Inference in get_args(annotation):
        return Inference(padding=64, padding_mode="reflect", pooling_window=None)
    if value is None and Degradation in get_args(annotation):
        return Degradation(share=0.5, noise=(0.0, 0.02), sharpen=(0.0, 0.0), jpeg=(80, 90))
    if value is None and Course in get_args(annotation):
        return Course(lr_hold=1)
    if value is None:
        return 64 if int in get_args(get_args(annotation)[0]) else 0.5
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.875 + 0.001
    if isinstance(value, str):
        return f"{value}x"
    if len(set(value)) > 1:
        return value[::-1]  # names of metrics must stay known
    return tuple(another(type(v), v) for v in value)


def changed(config: Config, section: str, name: str) -> Config:
    old = getattr(config, section)
    value = another(type(old).model_fields[name].annotation, getattr(old, name))
    assert value != getattr(old, name)
    new = type(old).model_validate({n: getattr(old, n) for n in type(old).model_fields} | {name: value})
    return config.model_copy(update={section: new})


@pytest.mark.parametrize(("section", "name"), fields(), ids=lambda part: part)
def test_a_key_follows_the_fields_that_its_stages_read_and_no_others(tiny_data: Path, section: str, name: str) -> None:
    config = tiny_config(tiny_data)
    other = changed(config, section, name)
    for row, before in zip(ROWS, keys(config), strict=True):
        assert (key(other, row) != before) is (section in reads(row)), row_name(row)


def test_a_key_does_not_follow_the_place_of_the_data_nor_what_no_stage_reads(tiny_data: Path, own_data: Path) -> None:
    config = tiny_config(tiny_data)
    others = [tiny_config(own_data), config.model_copy(update={"seeds": (5,)}), tiny_config(tiny_data, synthesis=None)]
    for other in others:
        assert [key(config, row) for row in ROWS] == [key(other, row) for row in ROWS]


def test_keys_of_different_rows_differ_and_are_stable(tiny_data: Path) -> None:
    first = [key(tiny_config(tiny_data), row) for row in ROWS]
    assert len(set(first)) == len(ROWS)
    assert first == [key(tiny_config(tiny_data), row) for row in ROWS]


def test_diffusion_steps_change_diffusion_and_joint_alone(tiny_data: Path) -> None:
    config, other = tiny_config(tiny_data), tiny_config(tiny_data, **{"diffusion.steps": 8})
    different = {row_name(row) for row in ROWS if key(config, row) != key(other, row)}
    assert different == {"diffusion", "joint", "restore-joint", "measure-joint"}


def test_seeds_change_what_is_trained_and_not_the_preparation(tiny_data: Path) -> None:
    config = tiny_config(tiny_data)
    different = {row_name(row) for row in ROWS if key(config, row, 0) != key(config, row, 1)}
    assert different == {*MODELS, "diffusion", *(f"{stage}-{model}" for stage in TESTED for model in MODELS)}
    with pytest.raises(InputError, match="stage 'baseline' needs a seed"):
        plan(config, "baseline")


@pytest.mark.parametrize("change", ["pixels", "name", "manifest"])
def test_other_data_is_another_key_everywhere(own_data: Path, change: str) -> None:
    config = tiny_config(own_data)
    before = [key(config, row) for row in ROWS]
    image = own_data / "test" / "coffee" / "sharp" / "0000.png"
    if change == "pixels":
        pixels = read_image(image)
        pixels[3, 5, 1] ^= 1
        write_image(image, pixels)
    elif change == "name":
        image.rename(image.with_name("0007.png"))
    else:
        (own_data / "manifest.csv").unlink()
    after = [key(config, row) for row in ROWS]
    assert all(b != a for b, a in zip(before, after, strict=True))


def test_the_description_is_fully_resolved_and_names_its_inputs(tiny_data: Path) -> None:
    run = plan(tiny_config(tiny_data), "joint", 3)
    told = run.description
    later = {"estimator", "predicts", "condition"}  # at their legacy defaults
    assert told["sections"]["diffusion"] == tiny_config(tiny_data).diffusion.model_dump(mode="json", exclude=later)
    assert told["sections"]["seed"] == 3 and "root" not in told["sections"]["data"]
    assert set(told["sections"]) == set(run.sections) - {"compute"}  # at its legacy defaults
    assert set(told["inputs"]) == {"prepare", "pretrain", "diffusion"}
    assert json.loads(json.dumps(told)) == told
    newer = replace(run, code="another")
    assert newer.key != run.key


def test_rows_share_runs_and_chains_are_in_order(tiny_data: Path) -> None:
    runs = plan_all(tiny_config(tiny_data), "measure", (0, 1))
    assert len(runs) == 1 + 2 * len(MODELS) == len({run.key for run in runs})
    chain = plan(tiny_config(tiny_data), "measure", 0, "joint").chain()
    assert [run.stage for run in chain] == ["prepare", "pretrain", "diffusion", "joint", "restore", "measure"]
    assert chain[0].key == runs[0].chain()[0].key
    with pytest.raises(InputError, match="stage 'jont' is not known; known: baseline, "):
        plan(tiny_config(tiny_data), "jont", 0)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_sees_the_sections_it_declared_and_no_others(tiny_data: Path, stage: str) -> None:
    config = tiny_config(tiny_data)
    sections = plan(config, stage, 7).typed_sections()
    for name in [*SECTIONS, "seeds", "seed"]:
        if name in STAGES[stage].reads:
            assert getattr(sections, name) == (7 if name == "seed" else getattr(config, name))
        else:
            with pytest.raises(AttributeError, match=f"Sections' object has no attribute '{name}'"):
                getattr(sections, name)


def test_a_folder_explains_itself(tiny_data: Path, tmp_path: Path) -> None:
    run = plan(tiny_config(tiny_data), "joint", 3)
    write_json(tmp_path / "config.json", run.description)
    for name in ("backbone", "latent", "diffusion", "joint"):
        section = stored_section(tmp_path, name)
        assert isinstance(section, Section) and section == run.sections[name]
    places = {"root": ""}  # not stored
    assert stored_section(tmp_path, "data") == run.sections["data"].model_copy(update=places)


def test_finished_is_having_a_result_and_nothing_else(tmp_path: Path) -> None:
    assert finished(tmp_path) is None and finished(tmp_path / "none") is None
    for name in ("config.json", "weights.safetensors", "checkpoint/last.pt", ".result.json.1.tmp"):
        write_bytes(tmp_path / name, b"{}")
        assert finished(tmp_path) is None
    write_json(tmp_path / "result.json", {"stage": "joint", "key": "k"})
    assert finished(tmp_path) == {"stage": "joint", "key": "k"}
    (tmp_path / "result.json").write_text('{"stage":')
    with pytest.raises(InputError, match=r"result.json: not valid JSON .*delete it to have it made again"):
        finished(tmp_path)


def test_json_that_is_no_object_or_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(InputError, match=r"a.json: should hold a JSON object, not a list"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"b.json: missing"):
        read_json(tmp_path / "b.json")


def test_a_write_that_fails_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(InputError, match="taken: is a folder"):
        write_bytes(tmp_path / "taken", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"] and (tmp_path / "taken" / "inside").is_dir()


def python(code: str, *arguments: object, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, **options)


WRITER = """
import sys
from itertools import count
from pathlib import Path
from blurdm.core.store import write_json
print("ready", flush=True)
for number in count():
    write_json(Path(sys.argv[1]), {"number": number, "padding": [number] * 20000})
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    seen = set()
    for delay in (0.011, 0.023, 0.037, 0.051, 0.073):
        with python(WRITER, path) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
            while not path.is_file():
                time.sleep(0.001)
            time.sleep(delay)
            writer.kill()
        value = read_json(path)
        assert value["padding"] == [value["number"]] * 20000
        seen.add(value["number"])
    assert len(seen) > 1


WORKER = """
import os, sys, time
from pathlib import Path
from blurdm.core.store import locked
folder = Path(sys.argv[1])
print("ready", flush=True)
for _ in range(20):
    with locked(folder):
        with open(folder / "log", "a") as file:
            file.write(f"in {os.getpid()}\\n")
            file.flush()
            time.sleep(0.001)
            file.write(f"out {os.getpid()}\\n")
"""


def test_two_processes_are_never_inside_at_once(tmp_path: Path) -> None:
    workers = [python(WORKER, tmp_path) for _ in range(3)]
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 2 * 20 * 3 and len({line.split()[1] for line in lines}) == 3
    for entered, left in zip(lines[::2], lines[1::2], strict=True):
        assert entered.startswith("in ") and left == entered.replace("in ", "out ")


HOLDER = """
import sys, time
from pathlib import Path
from blurdm.core.store import locked
with locked(Path(sys.argv[1])):
    print("inside", flush=True)
    time.sleep(600)
"""

WAITER = """
import sys
from pathlib import Path
from blurdm.core.store import locked
with locked(Path(sys.argv[1]), lambda owner: print("waiting for", owner, flush=True)):
    print("inside", flush=True)
"""


def test_a_lock_is_waited_for_and_freed_when_its_holder_is_killed(tmp_path: Path) -> None:
    with python(HOLDER, tmp_path) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "inside\n"
        with python(WAITER, tmp_path) as waiter:
            assert waiter.stdout is not None
            assert waiter.stdout.readline().startswith(f"waiting for process {holder.pid} on ")
            time.sleep(0.1)
            assert waiter.poll() is None
            os.kill(holder.pid, signal.SIGKILL)
            assert waiter.stdout.readline() == "inside\n" and waiter.wait(timeout=30) == 0


HEAVY = ("torch", "torchvision", "pyiqa", "mlflow", "ray", "submitit", "matplotlib", "cv2", "pandas", "skimage")


@pytest.mark.parametrize(
    "module",
    ["blurdm.core.config", "blurdm.core.runs", "blurdm.stages.plan", "blurdm.cli.main", "blurdm.cli.chain"],
)
def test_the_bottom_layer_imports_nothing_heavy(module: str) -> None:
    code = "import importlib, sys; importlib.import_module(sys.argv[1]); print(*sys.modules)"
    loaded, _ = python(code, module).communicate()
    assert module in loaded.split()
    assert set(HEAVY).isdisjoint(loaded.split())


def test_planning_and_the_help_text_need_no_torch(tiny_data: Path) -> None:
    code = (
        "import sys; from blurdm.core.config_io import load_config;"
        "from blurdm.stages.plan import plan_all, check; c = load_config('experiments/presets/smoke.yaml',"
        " ['synthesis=null', 'data.root=' + sys.argv[1], 'data.val_scenes=[brick]']); check(c, 'x');"
        "print(len(plan_all(c, 'measure', (0,)))); print(*sys.modules)"
    )
    count, loaded = python(code, tiny_data).communicate()[0].split("\n", 1)
    assert count == "5" and set(HEAVY).isdisjoint(loaded.split())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_gets_no_more_devices_than_it_can_use(stage: str) -> None:
    used = Resources("cuda", threads=3, ranks=4).for_stage(stage)
    assert (used.device, used.threads) == ("cpu" if stage == "prepare" else "cuda", 3)
    assert used.ranks == (4 if stage in TRAINED else 1)
