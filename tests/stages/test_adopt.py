"""Results know their code: what changed is computed again, and ``adopt`` keeps what a refactoring left equal."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.sources import Sources
from analysis.trace import trace
from analysis.verify import verify
from blurdm.cli.chain import write_pointer
from blurdm.core import code
from blurdm.core.arms import STAGES
from blurdm.core.key import key_of
from blurdm.core.runs import Resources, Run
from blurdm.core.store import finished, read_json, write_json
from blurdm.stages.adopt import adopt, reasons_to_compute
from blurdm.stages.plan import plan
from blurdm.stages.run import run_stage
from tests.support.tiny import Told, state_of, tiny_config, write_tiny_config

Edit = Callable[[str, str], None]
PROCESS = "diffusion/process.py"


@pytest.fixture(scope="module")
def made(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of the tiny chain: BlurDM, measured, and the measured input."""
    root = tmp_path_factory.mktemp("made")
    for model in ("joint", None):
        run_stage(plan(tiny_config(tiny_data), "measure", 0, model), root, Resources())
    return root


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Append a line to a file of the package, as far as digests can tell; what runs stays as it is."""
    copy = tmp_path / "blurdm"
    shutil.copytree(code.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "pretrained"))
    monkeypatch.setattr(code, "PACKAGE", copy)
    code.code_digest.cache_clear()

    def append(name: str, line: str) -> None:
        with open(copy / name, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        code.code_digest.cache_clear()

    yield append
    code.code_digest.cache_clear()


def planned(data: Path, **overrides: Any) -> dict[str, Run]:
    """The runs behind the measured BlurDM model, by stage."""
    return {run.stage: run for run in plan(tiny_config(data, **overrides), "measure", 0, "joint").chain()}


def adopt_all(runs: Path, data: Path, stages: list[str] | None = None) -> tuple[int, int, list[str]]:
    lines: list[str] = []
    raw = planned(data)["prepare"].inputs["raw"]
    adopted, refused = adopt(runs, stages or list(STAGES), {str(raw): str(data)}, Resources(), lines.append)
    return adopted, refused, lines


@pytest.mark.parametrize(
    ("name", "line", "changed"),
    [
        (PROCESS, "X = 1", {"diffusion", "joint", "restore", "measure"}),
        (PROCESS, "# a comment", set()),
        ("training/losses/l1.py", "X = 1", {"pretrain", "diffusion", "joint", "restore", "measure"}),
        ("metrics/similarity.py", "X = 1", {"measure"}),
        ("models/backbones/nafnet.py", "X = 1", set()),  # another backbone than the config's
        ("data/photos/demo.py", "X = 1", set()),
        ("cli/main.py", "X = 1", set()),
    ],
)
def test_a_change_of_code_is_a_new_key_of_what_depends_on_it(
    tiny_data: Path, edit: Edit, name: str, line: str, changed: set[str]
) -> None:
    before = {stage: run.key for stage, run in planned(tiny_data).items()}
    edit(name, line)
    after = {stage: run.key for stage, run in planned(tiny_data).items()}
    assert {stage for stage in before if before[stage] != after[stage]} == changed


def test_what_is_computed_again_says_which_file_changed(tiny_data: Path, runs: Path, edit: Edit) -> None:
    target = planned(tiny_data)["measure"]
    assert reasons_to_compute([target], runs) == []
    edit(PROCESS, "X = 1")
    lines = reasons_to_compute([planned(tiny_data)["measure"]], runs)
    assert [line.partition(":")[0] for line in lines] == ["diffusion", "joint", "restore"]
    assert all("computed again: blurdm/diffusion/process.py changed since" in line for line in lines)
    other = planned(tiny_data, **{"diffusion.steps": 3})["measure"]
    assert reasons_to_compute([other], runs) == [], "it never was computed"


def test_adopted_runs_have_new_keys_and_the_same_content(
    tiny_data: Path, runs: Path, edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, before = planned(tiny_data), state_of(runs)
    edit(PROCESS, "X = 1")
    new = planned(tiny_data)
    adopted, refused, lines = adopt_all(runs, tiny_data)
    assert refused == 0, lines
    assert {stage for stage in new if old[stage].key != new[stage].key} == {"diffusion", "joint", "restore", "measure"}
    assert adopted == 4 + 2 and not list(runs.glob(".adopt-*"))
    assert {name: value for name, value in state_of(runs).items() if name in before} == before
    for stage, run in new.items():
        folder = run.folder(runs)
        result = finished(folder)
        assert result is not None and result["key"] == run.key
        assert read_json(folder / "config.json") == run.description
        for name in ("weights.safetensors", "per_image.csv", "history.jsonl"):
            if (old[stage].folder(runs) / name).is_file():
                assert (folder / name).read_bytes() == (old[stage].folder(runs) / name).read_bytes()
        if old[stage].key != run.key:
            origin = read_json(folder / "provenance.json")
            assert origin["adopted"]["from"] == old[stage].key
            assert origin["code"] == code.file_digests(STAGES[stage].code, run.backbone)
    monkeypatch.setattr("blurdm.stages.run.call_stage", lambda *_: pytest.fail("nothing is left to compute"))
    run_stage(new["measure"], runs, Resources())
    measured = [plan(tiny_config(tiny_data), "measure", 0, model) for model in (None, "joint")]
    for run in measured:
        run_stage(run, runs, Resources())
    assert adopt_all(runs, tiny_data)[:2] == (0, 0), "a second time there is nothing to do"


def test_tables_lead_to_adopted_runs(tiny_data: Path, runs: Path, edit: Edit, tmp_path: Path) -> None:
    edit(PROCESS, "X = 1")
    adopt_all(runs, tiny_data)
    pointer, reports = tmp_path / "chain" / "measure.json", tmp_path / "reports"
    write_pointer(pointer, "measure", [plan(tiny_config(tiny_data), "measure", 0, m) for m in (None, "joint")], runs)
    build_all(Sources(pointer, runs), reports)
    config = write_tiny_config(tmp_path / "params.yaml", tiny_data)
    assert verify(reports, Sources(pointer, runs), config)[0] == []
    (origin,) = trace(reports, Sources(pointer, runs), "main", "blurdm", "psnr").origins
    assert origin.key == planned(tiny_data)["measure"].key
    assert [folder.parent.name for folder in origin.made_from] == ["pretrain", "diffusion", "joint"]


def build_all(sources: Sources, reports: Path) -> None:
    from analysis.build import build_tables

    build_tables(sources, reports / "tables")


def test_a_run_that_comes_out_otherwise_is_refused_with_all_that_needs_it(
    tiny_data: Path, runs: Path, edit: Edit
) -> None:
    history = planned(tiny_data)["diffusion"].folder(runs) / "history.jsonl"
    first, *rest = history.read_text().splitlines()
    row = json.loads(first)
    history.write_text("\n".join([json.dumps(row | {"loss": row["loss"] * 1.5}), *rest]) + "\n")
    edit(PROCESS, "X = 1")
    adopted, refused, lines = adopt_all(runs, tiny_data)
    assert (adopted, refused) == (2, 1), "the measured input, and no run that needs the refused one"
    (line,) = (line for line in lines if "/runs/diffusion/" in line)
    assert "not adopted: loss at step" in line and "comes out as" in line
    assert all(finished(run.folder(runs)) is None for stage, run in planned(tiny_data).items() if stage == "joint")


@pytest.mark.parametrize(("stage", "wrong"), [("restore", "images"), ("measure", "per_image.csv")])
def test_images_and_numbers_are_compared_too(tiny_data: Path, runs: Path, edit: Edit, stage: str, wrong: str) -> None:
    folder = planned(tiny_data)[stage].folder(runs)
    if stage == "restore":
        for image in (folder / "images").rglob("0000.png"):
            image.write_bytes(image.read_bytes() + b"x")
        edit("stages/restore.py", "X = 1")
    else:
        table = folder / wrong
        head, *rows = table.read_text().splitlines()
        larger = [",1".join(row.rsplit(",", 1)) for row in rows]  # 0.8 becomes 10.8
        table.write_text("\n".join([head, *larger]) + "\n")
        edit("stages/measure.py", "X = 1")
    _, refused, lines = adopt_all(runs, tiny_data)
    assert refused == 1 and any(f"/{stage}/" in line and "not adopted" in line for line in lines), lines


def test_runs_of_the_first_release_are_adopted(tiny_data: Path, runs: Path) -> None:
    """Their descriptions have a version of the stage instead of a digest of its code."""
    keys: dict[str, str] = {}
    chain = planned(tiny_data)
    for stage in ("prepare", "pretrain", "diffusion", "joint"):
        folder = chain[stage].folder(runs)
        described = read_json(folder / "config.json")
        del described["code"]
        described |= {"version": 2, "inputs": {n: keys.get(k, k) for n, k in described["inputs"].items()}}
        keys[folder.name] = key_of(described)
        origin = {n: value for n, value in read_json(folder / "provenance.json").items() if n != "code"}
        write_json(folder / "config.json", described)
        write_json(folder / "provenance.json", origin)
        folder.rename(folder.with_name(key_of(described)))
    for stage in ("restore", "measure"):
        shutil.rmtree(runs / stage)
    (reason, *_) = reasons_to_compute([chain["joint"]], runs)
    assert reason.startswith("prepare: computed again: ") and "was made by an earlier release" in reason
    adopted, refused, lines = adopt_all(runs, tiny_data)
    assert (adopted, refused) == (4, 0), lines
    assert finished(chain["joint"].folder(runs)) is not None


def test_the_command_adopts_chosen_stages(
    tiny_data: Path, runs: Path, edit: Edit, tmp_path: Path, blurdm: Callable[..., Told]
) -> None:
    config = write_tiny_config(tmp_path / "tiny.yaml", tiny_data)
    edit(PROCESS, "X = 1")
    told = blurdm("runs", "adopt", "diffusion", "--runs", runs, "--config", config)
    assert told.code == 0 and told.out.splitlines()[-1] == "1 adopted, 0 refused", told
    assert "blurdm/diffusion/process.py changed since" in told.out
    new = planned(tiny_data)
    assert finished(new["diffusion"].folder(runs)) and finished(new["joint"].folder(runs)) is None
    told = blurdm("runs", "adopt", "difusion", "--runs", runs, "--config", config)
    assert told.code == 2 and told.complaints == [
        f"blurdm: stage 'difusion' is not known; known: {', '.join(sorted(STAGES))}"
    ]
    told = blurdm("runs", "adopt", "--runs", tmp_path / "none", "--config", config)
    assert told.code == 2 and told.complaints == [f"blurdm: {tmp_path / 'none'}: no such folder of runs"]


def test_data_that_are_not_there_cannot_be_checked(tiny_data: Path, runs: Path, edit: Edit) -> None:
    edit(PROCESS, "X = 1")
    lines: list[str] = []
    assert adopt(runs, ["diffusion"], {}, Resources(), lines.append) == (0, 1)
    assert lines[0].endswith("its data set is not there to check it; name it by --data")


@pytest.mark.parametrize("text", ["{}", "[]", "", '{"stage": "joint", "sections": [], "inputs": {}}'])
def test_a_damaged_run_folder_takes_no_other_with_it(runs: Path, tiny_data: Path, edit: Edit, text: str) -> None:
    broken = runs / "baseline" / "broken"
    broken.mkdir(parents=True)
    for name in ("config.json", "result.json"):
        (broken / name).write_text(text)
    edit(PROCESS, "x = 1")
    adopted, refused, lines = adopt_all(runs, tiny_data)
    assert adopted > 0 and refused == 1 and any(line.startswith(f"{broken}: not adopted: ") for line in lines)
    assert reasons_to_compute([plan(tiny_config(tiny_data), "baseline", 0, None)], runs) == []
