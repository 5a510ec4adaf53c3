"""What DVC shares of a run: the same wherever it was computed, and enough to make the run folder again."""

import json
import shutil
from pathlib import Path

import pytest

from blurdm.core.errors import InputError
from blurdm.core.exported import WORKING, export_run, recreate_runs
from blurdm.core.key import key_of
from blurdm.core.runs import stored_run
from blurdm.core.store import read_json, write_json

DESCRIPTION = {"stage": "restore", "sections": {"seed": 0}, "inputs": {"raw": "0"}, "code": "c"}
KEY = key_of(DESCRIPTION)


def make(root: Path, seconds: float, host: str) -> Path:
    """A finished run; what differs between two machines is ``seconds`` and ``host``."""
    folder = root / "restore" / KEY
    cost = {"blurdm": {"macs": 7, "seconds_per_image": seconds, "peak_memory_mb": seconds, "threads": 2}}
    write_json(folder / "config.json", DESCRIPTION)
    write_json(folder / "provenance.json", {"hardware": {"host": host}, "code": {"a.py": "0"}, "data_digest": "d"})
    lines = [{"step": step, "loss": 0.1 * step, "images_per_s": seconds} for step in (1, 2)]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in WORKING:
        (folder / name).write_text(host)
    (folder / "images" / "blurdm").mkdir(parents=True)
    (folder / "images" / "blurdm" / "0.png").write_bytes(b"pixels")
    result = {"stage": "restore", "key": KEY, "metrics": {"psnr": 30.1}, "cost": cost}
    write_json(folder / "result.json", {"seconds": seconds, **result})
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A run, its export, and the pointer to both."""
    digest = export_run(make(tmp_path / "runs", 1.5, "here"), tmp_path / "chain" / "restore" / "blurdm")
    entry = {"stage": "restore", "key": KEY, "export": "chain/restore/blurdm", "digest": digest}
    write_json(tmp_path / "chain" / "restore.json", {"stage": "restore", "runs": [entry]})
    write_json(tmp_path / "chain" / "track.json", {"pending": False})
    for number, other in enumerate(("[1, 2]", "half of {", '{"runs": 3}', '{"runs": ["a", {"key": "b"}]}')):
        (tmp_path / "chain" / f"{number}.json").write_text(other)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_machines_export_the_same(project: Path, tmp_path: Path) -> None:
    other = export_run(make(tmp_path / "other", 0.25, "there"), tmp_path / "other" / "export")
    assert other == read_json(project / "chain" / "restore.json")["runs"][0]["digest"]
    exported = contents(tmp_path / "other" / "export")
    assert exported == contents(project / "chain" / "restore" / "blurdm")
    assert set(exported) == {"config.json", "provenance.json", "history.jsonl", "result.json", "images/blurdm/0.png"}
    assert not any(word in content for content in exported.values() for word in (b"there", b"0.25", b"seconds"))


def test_an_export_holds_nothing_of_an_earlier_one(project: Path) -> None:
    target = project / "chain" / "restore" / "blurdm"
    (target / "images" / "gone.png").write_bytes(b"")
    assert (
        export_run(project / "runs" / "restore" / KEY, target)
        == read_json(project / "chain/restore.json")["runs"][0]["digest"]
    )


def test_a_missing_run_is_made_again_and_is_a_run(project: Path) -> None:
    folder = project / "runs" / "restore" / KEY
    assert recreate_runs(project / "runs", project / "chain") == [], "it is there"
    shutil.rmtree(project / "runs")
    assert recreate_runs(project / "runs", project / "chain", {"another"}) == []
    assert recreate_runs(project / "runs", project / "chain") == [folder]
    assert stored_run(folder).key == KEY and read_json(folder / "result.json")["metrics"] == {"psnr": 30.1}
    assert (folder / "images" / "blurdm" / "0.png").read_bytes() == b"pixels"


def test_a_checkpoint_in_the_way_does_no_harm(project: Path) -> None:
    folder = project / "runs" / "restore" / KEY
    (folder / "result.json").unlink()
    assert recreate_runs(project / "runs", project / "chain") == [folder]
    assert read_json(folder / "result.json")["metrics"] == {"psnr": 30.1}


@pytest.mark.parametrize("spoilt", ["images/blurdm/0.png", "config.json", "more"])
def test_what_is_not_as_its_pointer_says_is_refused(project: Path, spoilt: str) -> None:
    shutil.rmtree(project / "runs")
    export = project / "chain" / "restore" / "blurdm"
    (export / spoilt).write_text('{"another": "content"}')
    with pytest.raises(InputError, match=f"{export}: not the run {KEY} that .*restore.json names; get it again"):
        recreate_runs(project / "runs", project / "chain")
    assert not (project / "runs").exists()


def test_an_export_that_was_not_pulled_is_passed_over(project: Path) -> None:
    shutil.rmtree(project / "runs")
    shutil.rmtree(project / "chain" / "restore")
    assert recreate_runs(project / "runs", project / "chain") == []
