"""Reports that do not follow from their runs are caught, cell by cell, run by run; every number leads to its runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from analysis.build import build_tables
from analysis.drawing import INDEX
from analysis.grid import build_grid
from analysis.page.contents import read_contents
from analysis.sources import Sources
from analysis.tables.table import read_table
from analysis.trace import main as trace_main
from analysis.trace import sweep_command, trace
from analysis.verify import main as verify_main
from analysis.verify import verify
from blurdm.core.config_io import load_config
from blurdm.core.errors import InputError
from blurdm.core.ledger import read_ledger
from blurdm.data.splits import folder_digest
from tests.support.fake_grid import make_grid
from tests.support.fake_runs import DIGEST, edit_json, make_chain, make_run, seal

PARAMS = Path(__file__).parents[2] / "params.yaml"


def build(root: Path) -> Path:
    """A chain and a grid, their result files and the tables built from them; returns ``root``."""
    make_chain(root, images=False)
    make_grid(root)
    seal(root)
    build_tables(Sources(root / "chain" / "measure.json", root / "runs"), root / "reports" / "tables")
    return root


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may tamper with."""
    shutil.copytree(built, tmp_path / "own")
    return tmp_path / "own"


def evaluated(root: Path, key: str) -> Path:
    return root / "runs" / "measure" / key


def said(root: Path, capsys: pytest.CaptureFixture[str], code: int = 2) -> list[str]:
    """The lines of ``analysis.verify``, which has to end with ``code``."""
    options = ["--pointer", str(root / "chain" / "measure.json"), "--runs", str(root / "runs")]
    capsys.readouterr()
    assert verify_main([str(root / "reports"), *options, "--config", str(root / "params.yaml")]) == code
    return capsys.readouterr().out.splitlines()


def has(lines: list[str], *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in lines)


def test_what_was_just_built_follows_from_its_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(root, capsys, 0) == [f"{root / 'reports'}: every number of every table follows from its runs"]


def change_image(root: Path) -> None:
    """One digit of one image's PSNR."""
    path = evaluated(root, "eval_joint_1") / "per_image.csv"
    lines = path.read_text().splitlines()
    arm, scene, image, psnr, *rest = lines[3].split(",")
    lines[3] = ",".join([arm, scene, image, str(float(psnr) + 0.5), *rest])
    path.write_text("\n".join(lines) + "\n")


def change_image_and_digest(root: Path) -> None:
    """The same, by somebody who knows of the digest."""
    change_image(root)
    result = json.loads((evaluated(root, "eval_joint_1") / "result.json").read_text())
    del result["per_image_sha256"]
    (evaluated(root, "eval_joint_1") / "result.json").write_text(json.dumps(result))


def change_cell(root: Path) -> None:
    path = root / "reports" / "tables" / "main.json"
    told = json.loads(path.read_text())
    row = next(row for row in told["rows"] if row["id"] == "blurdm")
    row["cells"]["psnr"] |= {"text": "27.77", "value": 27.77}
    path.write_text(json.dumps(told))


def change_tex(root: Path) -> None:
    path = root / "reports" / "tables" / "ablation_steps.tex"
    path.write_text(path.read_text().replace("32.28", "32.82"))


def delete_run(root: Path) -> None:
    shutil.rmtree(evaluated(root, "eval_direct_0"))


def delete_grid_run(root: Path) -> None:
    shutil.rmtree(evaluated(root, "e_steps_5_fixed_0"))


def other_data(root: Path) -> None:
    edit_json(evaluated(root, "eval_joint_0") / "provenance.json", data_digest="f" * 40)


def other_protocol(root: Path) -> None:
    edit_json(evaluated(root, "e_steps_2_fixed_0") / "result.json", protocol="blurdm")


def every_run_of_another_protocol(root: Path) -> None:
    for path in (root / "runs" / "measure").glob("eval_*/result.json"):
        edit_json(path, protocol="blurdm")


def seed_twice(root: Path) -> None:
    """Seed 1 of the baseline becomes seed 0 once more, in the list of the chain's runs."""
    pointer = root / "chain" / "measure.json"
    runs = json.loads(pointer.read_text())["runs"]
    runs = [run | ({"seed": 0} if run["key"] == "eval_baseline_1" else {}) for run in runs]
    edit_json(pointer, runs=runs)


def seed_copied(root: Path) -> None:
    """The measurements of seed 0 under the name of seed 1."""
    for name in ("per_image.csv", "result.json"):
        shutil.copy(evaluated(root, "eval_joint_0") / name, evaluated(root, "eval_joint_1") / name)


def model_of_the_same_seed(root: Path) -> None:
    config = root / "runs" / "joint" / "joint1" / "config.json"
    sections = json.loads(config.read_text())["sections"]
    edit_json(config, sections=sections | {"seed": 0})


def seed_twice_in_a_grid(root: Path) -> None:
    ledger = root / "runs" / "sweeps" / "ablation_steps.json"
    rows = json.loads(ledger.read_text())["rows"]
    for run in rows[3]["runs"]:
        run["seed"] = 0
    edit_json(ledger, rows=rows)


def ledger_gone(root: Path) -> None:
    (root / "runs" / "sweeps" / "ablation_steps.json").unlink()


TAMPERED: dict[Callable[[Path], None], list[tuple[str, ...]]] = {
    change_image: [
        ("run eval_joint_1", "per_image.csv was changed since it was measured"),
        ("main: row blurdm, column psnr", "the report says 25.50", "its runs give 25.51"),
        ("differences: row blurdm-baseline-psnr, column mean", "its runs give"),
    ],
    change_image_and_digest: [
        ("run eval_joint_1", "the mean of blurdm.psnr", "result.json says"),
    ],
    change_cell: [
        ("main: row blurdm, column psnr", "the report says 27.77", "its runs give 25.50"),
    ],
    change_tex: [
        ("ablation_steps.tex", "is not what its runs give"),
    ],
    delete_run: [
        ("run eval_direct_0", "missing"),
        ("differences: cannot be computed again", "eval_direct_0"),
    ],
    delete_grid_run: [
        ("run e_steps_5_fixed_0", "missing"),
        ("ablation_steps: row steps=5, fixed, column psnr", "its runs give"),
    ],
    other_data: [
        ("main: column psnr", "its runs saw different data", "run eval_joint_0 is one of ffffffffffff"),
    ],
    other_protocol: [
        ("run e_steps_2_fixed_0", "protocol blurdm, the table says standard"),
        ("ablation_steps: cannot be computed again", "column 'psnr'", "blurdm, standard"),
    ],
    every_run_of_another_protocol: [
        ("run eval_none_None", "protocol blurdm, the table says standard"),
    ],
    seed_twice: [
        ("main: cannot be computed again", "arm 'baseline', seed 0", "appears twice"),
    ],
    seed_copied: [
        ("main: row blurdm, column psnr", "the same per-image rows", "eval_joint_0 and eval_joint_1"),
    ],
    seed_twice_in_a_grid: [
        ("ablation_steps: cannot be computed again", "'steps=2, fixed': seed 0 has image"),
    ],
    ledger_gone: [
        ("ablation_steps: no table of the report is called so",),
    ],
}


@pytest.mark.parametrize("tamper", TAMPERED, ids=[tamper.__name__ for tamper in TAMPERED])
def test_tampering_is_named(root: Path, capsys: pytest.CaptureFixture[str], tamper: Callable[[Path], None]) -> None:
    tamper(root)
    lines = said(root, capsys)
    for parts in TAMPERED[tamper]:
        assert has(lines, *parts), "\n".join(lines)
    assert len(set(lines)) == len(lines)


def test_data_that_changed_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = root / "pairs"
    data.mkdir()
    (data / "image.png").write_bytes(b"as it was")
    shutil.copy(PARAMS, root / "params.yaml")
    text = (root / "params.yaml").read_text().replace("pairs: data/pairs", f"pairs: {data}")
    (root / "params.yaml").write_text(text)
    assert load_config(root / "params.yaml").data.root == str(data)
    config = {"sections": {}, "inputs": {"raw": folder_digest(data)}}
    prepared = make_run(root, "prepare", "p0", config, [], {"metrics": {}})
    (prepared / "index.json").write_text(json.dumps({"digest": DIGEST, "pairs": []}))
    assert len(said(root, capsys, 0)) == 1
    (data / "image.png").write_bytes(b"changed")
    assert has(said(root, capsys), "the data of the chain changed", str(data))
    (prepared / "index.json").write_text('{"digest": "another", "pairs": []}')
    assert has(said(root, capsys), "run eval_joint_0", "is of another version")


def test_a_sweep_says_where_its_data_lies(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that a grid which measures on another data set than its preset's can be checked."""
    data = root / "others"
    data.mkdir()
    (data / "image.png").write_bytes(b"as it was")
    config = {"sections": {}, "inputs": {"raw": folder_digest(data)}}
    prepared = make_run(root, "prepare", "p1", config, [], {"metrics": {}})
    (prepared / "index.json").write_text(json.dumps({"digest": DIGEST, "pairs": []}))
    for run in (root / "runs" / "measure").glob("e_*/config.json"):
        edit_json(run, inputs={**json.loads(run.read_text()).get("inputs", {}), "prepare": "p1"})
    for ledger in (root / "runs" / "sweeps").glob("*.json"):
        edit_json(ledger, data={"p1": str(data)})
    assert len(said(root, capsys, 0)) == 1
    (data / "image.png").write_bytes(b"changed")
    assert has(said(root, capsys), "the data of sweep", "changed", str(data))


def test_a_changed_config_does_not_fit_its_key(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real keys are hashes of config.json; those of made-up runs are names, so one gets a hash here."""
    key, folder = "0123456789abcdef", evaluated(root, "eval_none_None")
    shutil.copytree(folder, folder.with_name(key))
    pointer = root / "chain" / "measure.json"
    runs = json.loads(pointer.read_text())["runs"]
    edit_json(pointer, runs=[runs[0] | {"key": key, "folder": f"runs/measure/{key}"}, *runs[1:]])
    build_tables(Sources(pointer, root / "runs"), root / "reports" / "tables")
    assert has(said(root, capsys), f"run {key}", "config.json was changed: its key would be")


def test_reports_without_tables_are_one_line(tmp_path: Path) -> None:
    message = f"{tmp_path / 'reports' / 'tables'}: no tables; build it with: python -m analysis.build"
    with pytest.raises(InputError, match=f"^{message}$"):
        verify(tmp_path / "reports", sources(tmp_path), PARAMS)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep as it leaves its own table and plot, without any report."""
    root = tmp_path_factory.mktemp("swept")
    ledger = make_grid(root)
    seal(root)
    build_grid(ledger, root / "results", root / "reports", Console(quiet=True))
    return root


MISSING = "ablation_steps: the table is missing from {}; build it with: python -m analysis.build"


def test_the_table_of_a_sweep_verifies_without_a_report(swept: Path) -> None:
    problems, unchecked = verify(swept / "reports", sources(swept), PARAMS)
    assert problems == [] and MISSING.format(swept / "reports" / "tables") in unchecked


def test_the_table_of_a_sweep_verifies_beside_an_older_report(root: Path) -> None:
    ledger = root / "runs" / "sweeps" / "ablation_steps.json"
    for file in (root / "reports" / "tables").glob("ablation_steps.*"):
        file.unlink()
    problems, _ = verify(root / "reports", sources(root), PARAMS)
    assert problems == [MISSING.format(root / "reports" / "tables")], "nothing else shows the sweep"
    build_grid(ledger, root / "results", root / "reports", Console(quiet=True))
    problems, unchecked = verify(root / "reports", sources(root), PARAMS)
    assert problems == [] and unchecked == [MISSING.format(root / "reports" / "tables")]
    (root / "reports" / "figures").mkdir()
    (root / "reports" / "figures" / INDEX).write_text("[]")
    reason = "it was not built; do it with: python -m analysis.build"
    assert ("Table 'ablation_steps'", reason) in read_contents(root / "reports").missing


@pytest.mark.parametrize("name", ["table.json", "table.md", "table.tex", "table.csv"])
def test_a_table_of_a_sweep_that_was_changed_is_caught(name: str, swept: Path, tmp_path: Path) -> None:
    shutil.copytree(swept, tmp_path / "own")
    file = tmp_path / "own" / "reports" / "grids" / "ablation_steps" / name
    text = file.read_text()
    assert "32.1" in text
    file.write_text(text.replace("32.1", "33.1"))
    problems, _ = verify(tmp_path / "own" / "reports", sources(tmp_path / "own"), PARAMS)
    assert problems


def test_a_number_of_a_sweep_leads_to_its_runs_without_a_report(swept: Path) -> None:
    traced = trace(swept / "reports", sources(swept), "ablation_steps", "steps=5, fixed", "psnr_difference")
    assert traced.origins


def sources(root: Path) -> Sources:
    return Sources(root / "chain" / "measure.json", root / "runs")


def test_a_number_leads_to_its_runs_and_the_command_that_makes_them_again(built: Path) -> None:
    found = trace(built / "reports", sources(built), "main", "BlurDM", "PSNR")
    assert (found.row, found.column, found.command) == ("blurdm", "psnr", "dvc repro report")
    assert [(one.key, one.seed) for one in found.origins] == [("eval_joint_0", 0), ("eval_joint_1", 1)]
    first = found.origins[0]
    assert first.config.is_file() and first.per_image.is_file() and first.git_revision == "a" * 40
    assert [folder.name for folder in first.made_from] == ["pretrain0", "joint0"]
    assert first.data_digest.startswith("0123456789ab") and "blurdm track" in first.mlflow
    grid = trace(built / "reports", sources(built), "ablation_steps", "steps=5, fixed", "psnr_difference")
    assert grid.command == "python experiments/sweep.py --grid ablation_steps && python -m analysis.build"


def test_every_number_of_every_table_can_be_traced(built: Path) -> None:
    traced = 0
    for path in sorted((built / "reports" / "tables").glob("*.json")):
        table = read_table(path)
        for row, column, cell in table.cells():
            if cell.value is not None and not cell.published:
                found = trace(built / "reports", sources(built), table.name, row.id, column.id)
                assert found.origins and found.text.startswith(cell.text)
                traced += 1
    assert traced > 150


def test_a_run_that_was_sent_has_its_link(root: Path) -> None:
    told = {"uri": "http://server:5000", "experiment_id": "3", "run_id": "abc"}
    (root / "runs" / "mlflow.json").write_text(json.dumps({"eval_joint_0": told}))
    found = trace(root / "reports", sources(root), "main", "blurdm", "psnr")
    assert found.origins[0].mlflow == "http://server:5000/#/experiments/3/runs/abc"


def test_a_changed_sweep_is_asked_for_as_it_was(root: Path) -> None:
    path = root / "runs" / "sweeps" / "ablation_steps.json"
    edit_json(path, grid="ablation_steps-0a1b2c", overrides=["joint.lr=1e-4"], preset="paper")
    command = sweep_command(read_ledger(path))
    assert command == (
        "python experiments/sweep.py --grid ablation_steps --preset paper --seeds 0,1 --set joint.lr=1e-4"
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("mian", "blurdm", "psnr"), "did you mean 'main'"),
        (("main", "blurmd", "psnr"), "did you mean 'blurdm'"),
        (("main", "blurdm", "snr"), "did you mean 'psnr'"),
        (("reference", "stripformer-blurdm", "gopro_psnr"), "is a published number"),
        (("training_budget", "baseline-3000", "hours"), "has no run behind it"),
    ],
)
def test_what_cannot_be_traced_is_one_line(
    built: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, ...], message: str
) -> None:
    options = ["--pointer", str(built / "chain" / "measure.json"), "--runs", str(built / "runs")]
    assert trace_main([*asked, *options, "--reports", str(built / "reports")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_number_whose_run_is_gone_cannot_be_traced(root: Path) -> None:
    delete_run(root)
    with pytest.raises(InputError, match=r"eval_direct_0: the run .* is missing"):
        trace(root / "reports", sources(root), "main", "direct", "psnr")
