"""The graph of runs: what is needed once, in which order, what becomes ready, and what a failure spoils."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from blurdm.core.config import Config
from blurdm.core.errors import InputError
from blurdm.core.graph import Failure, Frontier, distinct, inputs, levels, missing
from blurdm.core.progress import Progress
from blurdm.core.runs import Run
from blurdm.core.store import heartbeat, write_heartbeat, write_json
from blurdm.stages.plan import plan
from tests.support.tiny import tiny_config


def make(config: Config, name: str, **needs: Run) -> Run:
    """A run of a made-up stage; its key follows from its name and what it needs."""
    return Run(name, {"data": config.data}, needs, code="")


def finish(run: Run, root: Path) -> None:
    write_json(run.folder(root) / "result.json", {"stage": run.stage, "key": run.key})


@pytest.fixture(scope="module")
def config(tiny_data: Path) -> Config:
    return tiny_config(tiny_data)


@pytest.fixture
def diamond(config: Config) -> dict[str, Run]:
    """Prepare, two runs that need it, one that needs both, and one on its own."""
    a = make(config, "a")
    b, c = make(config, "b", a=a), make(config, "c", a=a)
    return {"a": a, "b": b, "c": c, "d": make(config, "d", b=b, c=c), "e": make(config, "e")}


def random_graph(config: Config, size: int, seed: int) -> list[Run]:
    """Run n needs up to three of those before it."""
    draw, runs = random.Random(seed), list[Run]()
    for number in range(size):
        chosen = draw.sample(runs, min(len(runs), draw.randrange(4)))
        runs.append(make(config, f"s{number}", **{run.stage: run for run in chosen}))
    return runs


def names(runs: list[Run]) -> str:
    return "".join(run.stage for run in runs)


def test_rows_share_what_they_need_by_key(tiny_data: Path) -> None:
    rows = [
        plan(tiny_config(tiny_data, **{"diffusion.steps": steps}), "measure", seed, "joint")
        for steps in (1, 2, 3)
        for seed in (0, 1)
    ]
    runs = distinct(rows)
    assert len(runs) == len({run.key for run in runs}) == 1 + 2 + 3 * 2 * 4
    assert [len(level) for level in levels(runs)] == [1, 2, 6, 6, 6, 6]
    stages = [{run.stage for run in level} for level in levels(runs)]
    assert stages == [{"prepare"}, {"pretrain"}, {"diffusion"}, {"joint"}, {"restore"}, {"measure"}]


@pytest.mark.parametrize("seed", range(5))
def test_inputs_come_before_their_users(config: Config, seed: int) -> None:
    runs = random_graph(config, 30, seed)
    random.Random(seed).shuffle(runs)
    order = [run.key for run in distinct(runs)]
    assert sorted(order) == sorted(run.key for run in runs)
    levelled = [[run.key for run in level] for level in levels(runs)]
    depth = {key: number for number, level in enumerate(levelled) for key in level}
    for run in runs:
        for needed in inputs(run):
            assert order.index(needed.key) < order.index(run.key) and depth[needed.key] < depth[run.key]
        assert depth[run.key] == max((depth[needed.key] + 1 for needed in inputs(run)), default=0)


def test_levels_count_only_members(diamond: dict[str, Run]) -> None:
    chosen = [diamond[name] for name in "dea"]
    assert [sorted(names(level)) for level in levels(chosen)] == [["a", "e"], ["d"]]


def test_what_only_a_finished_run_needed_is_not_missing(diamond: dict[str, Run], tmp_path: Path) -> None:
    assert names(missing([diamond["d"], diamond["e"]], tmp_path)) == "abcde"
    finish(diamond["b"], tmp_path)
    assert names(missing([diamond["d"]], tmp_path)) == "acd"
    finish(diamond["c"], tmp_path)
    assert names(missing([diamond["d"]], tmp_path)) == "d"
    finish(diamond["d"], tmp_path)
    assert missing([diamond["d"]], tmp_path) == []


def test_a_run_is_ready_once_all_it_needs_is_done(diamond: dict[str, Run]) -> None:
    frontier = Frontier(list(diamond.values()))
    assert names(list(frontier.ready)) == "ae"
    first, second = frontier.take(), frontier.take()
    assert first is diamond["a"] and second is diamond["e"] and frontier.take() is None and not frontier.over
    assert names(frontier.done(diamond["a"])) == "bc"
    assert frontier.take() is diamond["b"] and frontier.take() is diamond["c"]
    assert frontier.done(diamond["b"]) == [] and names(frontier.done(diamond["c"])) == "d"
    assert frontier.take() is diamond["d"]
    assert frontier.done(diamond["d"]) == frontier.done(diamond["e"]) == []
    assert frontier.over


def test_runs_that_are_added_wait_for_what_is_underway_and_start_once(diamond: dict[str, Run]) -> None:
    frontier = Frontier([diamond["a"], diamond["b"]])
    assert frontier.take() is diamond["a"]
    frontier.add([diamond["a"], diamond["b"], diamond["c"], diamond["d"]])
    assert not frontier.ready and names(frontier.done(diamond["a"])) == "bc"
    assert frontier.take() is diamond["b"] and frontier.take() is diamond["c"]
    frontier.done(diamond["b"])
    assert not frontier.over and names(frontier.done(diamond["c"])) == "d"
    assert frontier.take() is diamond["d"] and frontier.done(diamond["d"]) == [] and frontier.over
    frontier.add([diamond["e"]])
    assert frontier.take() is diamond["e"]


def test_a_failure_spoils_descendants_alone(diamond: dict[str, Run]) -> None:
    frontier = Frontier(list(diamond.values()))
    frontier.take()
    frontier.done(diamond["a"])
    for _ in "ebc":
        frontier.take()
    failure = Failure(diamond["b"], "Traceback...\nValueError: odd\n", False)
    (spoiled,) = frontier.failed(failure)
    told = f"needs b {diamond['b'].key}, which did not finish: ValueError: odd"
    assert spoiled == Failure(diamond["d"], told, True)
    assert frontier.done(diamond["c"]) == [] and not frontier.over
    frontier.done(diamond["e"])
    assert frontier.over


@pytest.mark.parametrize("seed", range(20))
def test_every_run_ends_once_in_any_order(config: Config, seed: int) -> None:
    runs, draw = random_graph(config, 40, seed), random.Random(seed)
    frontier, ended, spoilt = Frontier(runs), set[str](), set[str]()
    underway: list[Run] = []
    while not frontier.over:
        while run := frontier.take():
            assert all(needed.key in ended for needed in inputs(run))
            underway.append(run)
        run = underway.pop(draw.randrange(len(underway)))
        if draw.random() < 0.15:
            broken = [run, *(failure.run for failure in frontier.failed(Failure(run, "odd", True)))]
            assert not spoilt & {r.key for r in broken}
            spoilt |= {r.key for r in broken}
        else:
            frontier.done(run)
            ended.add(run.key)
    assert ended | spoilt == {run.key for run in runs} and not ended & spoilt
    for run in runs:
        assert run.key not in ended or not any(needed.key in spoilt for needed in run.chain())


def raised(make_error: Callable[[], Exception]) -> Exception:
    try:
        raise make_error()
    except Exception as error:
        return error


def test_what_the_user_can_mend_is_told_in_one_line(config: Config, tmp_path: Path) -> None:
    run = make(config, "a")
    wrong = Failure.of(run, raised(lambda: InputError("x.yaml: steps: 0")), tmp_path)
    assert wrong == Failure(run, "x.yaml: steps: 0", True)
    full = Failure.of(run, raised(lambda: OSError(28, "No space left on device")), tmp_path)
    assert full.expected and full.message.startswith(f"{tmp_path}: no space left")
    bug = Failure.of(run, raised(lambda: KeyError("odd")), tmp_path)
    assert not bug.expected and bug.message.startswith("Traceback") and bug.message.endswith("KeyError: 'odd'\n")


def test_a_heartbeat_says_what_progress_did(tmp_path: Path) -> None:
    assert heartbeat(tmp_path) is None
    write_heartbeat(tmp_path, Progress(3, 10, numbers={"loss": 0.5}, note="images"))
    write_heartbeat(tmp_path, Progress(4, 10, numbers={"loss": 0.25, "val_psnr": 20.0}, note="images"))
    said = heartbeat(tmp_path)
    assert said is not None and {"time", "host", "pid"} < set(said)
    assert (said["step"], said["total"], said["unit"], said["note"]) == (4, 10, "step", "images")
    assert said["numbers"] == {"loss": 0.25, "val_psnr": 20.0}
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]
    (tmp_path / "progress.json").write_text("{")
    assert heartbeat(tmp_path) is None


def test_a_heartbeat_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    write_heartbeat(tmp_path / "none", Progress(1, 2))
    assert not (tmp_path / "none").exists()
