"""What is told to Slurm, and asked from it; no Slurm needed."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from blurdm.core.errors import InputError
from blurdm.core.runs import Resources
from experiments.executors.slurm import Slurm
from experiments.executors.slurm_jobs import states
from experiments.executors.slurm_options import check, minutes, parameters, read_options
from experiments.executors.slurm_queue import last_states
from tests.support.tiny import REPOSITORY


def test_no_slurm_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="^sbatch not found; --executor slurm needs a machine that submits"):
        Slurm(2, {}, tmp_path)
    assert states(tmp_path) == {}


def test_accounting_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command, says in (("sacct", "7|CANCELLED by 1000\n"), ("scontrol", "JobId=7 JobState=FAILED Reason=None\n")):
        script = tmp_path / command
        script.write_text(f"#!/bin/sh\nprintf '{says}'\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert last_states(["7"]) == {"7": "CANCELLED"}
    (tmp_path / "sacct").write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
    assert last_states(["7"]) == {"7": "FAILED"}


def test_time_limits_are_read_as_sbatch_reads_them() -> None:
    told = {90: 90, "90": 90, "01:30:00": 90, "45:30": 46, "2-12": 3600, "1-00:30": 1470, "1-01:30:01": 1531}
    assert {value: minutes(value, "time") for value in told} == told
    for wrong in (0, -5, 1.5, True, "soon", "00:00", None, "1:2:3:4"):
        with pytest.raises(InputError, match="^time: should be minutes, HH:MM:SS or D-HH:MM:SS, such as 04:00:00, not"):
            minutes(wrong, "time")


def test_the_example_is_passed_on_as_it_is_written() -> None:
    options = read_options(REPOSITORY / "experiments" / "slurm" / "example.yaml")
    passed = parameters(options, Resources(threads=8), "joint")
    assert passed["time"] == 240 and passed["cpus_per_task"] == 8 and passed["setup"][0] == options["setup"][0]
    assert {"partition", "account", "constraint", "mem", "gpus-per-node"} <= set(passed["additional_parameters"])


def test_a_run_on_a_gpu_asks_for_one_unless_told_otherwise() -> None:
    cuda = Resources(device="cuda")
    assert parameters({}, cuda, "joint")["additional_parameters"]["gpus-per-node"] == 1
    four = parameters({}, Resources(device="cuda", threads=6, ranks=4), "joint")
    assert four["additional_parameters"]["gpus-per-node"] == 4 and four["cpus_per_task"] == 24
    assert "gpus-per-node" not in parameters({"gres": "gpu:a100:2"}, cuda, "joint")["additional_parameters"]
    assert "gpus-per-node" not in parameters({"gpus_per_node": None}, cuda, "joint")["additional_parameters"]
    assert "gpus-per-node" not in parameters({}, Resources(), "joint")["additional_parameters"]


def test_a_stage_that_uses_less_asks_for_its_share_of_what_is_stated() -> None:
    four = Resources(device="cuda", ranks=4)
    stated = {
        "gres": "gpu:a100:4,disk:9",
        "cpus-per-task": 32,
        "mem-per-gpu": "8G",
        "stages": {"measure": {"qos": "low"}},
    }
    asked = {stage: parameters(stated, four, stage) for stage in ("prepare", "joint", "measure")}
    assert [values["cpus_per_task"] for values in asked.values()] == [8, 32, 8]
    passed = {stage: values["additional_parameters"] for stage, values in asked.items()}
    assert [values.get("gres") for values in passed.values()] == [None, "gpu:a100:4,disk:9", "gpu:a100:1,disk:9"]
    assert "mem-per-gpu" not in passed["prepare"] and passed["measure"]["qos"] == "low" and "qos" not in passed["joint"]


def test_a_training_on_several_nodes_asks_for_the_part_of_one_on_each() -> None:
    two = Resources(device="cuda", threads=2, ranks=8, nodes=2)
    asked = {stage: parameters({"srun-args": ["--mpi=none"]}, two, stage) for stage in ("prepare", "joint", "measure")}
    training = asked["joint"]
    assert (training["nodes"], training["ntasks_per_node"], training["cpus_per_task"]) == (2, 1, 16)
    assert training["additional_parameters"]["gpus-per-node"] == 4 and training["srun_args"] == [
        "--mpi=none",
        "--wait=60",
    ]
    for stage, gpus in (("prepare", None), ("measure", 1)):
        assert "nodes" not in asked[stage] and asked[stage]["srun_args"] == ["--mpi=none"]
        assert asked[stage]["additional_parameters"].get("gpus-per-node") == gpus
    stated = {"cpus-per-task": 32, "gpus-per-node": 4}
    assert [parameters(stated, two, stage)["cpus_per_task"] for stage in ("joint", "measure")] == [32, 8]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"array": "0-9"}, "array: is set by the sweep"),
        ({"--partition": "main"}, "--partition: should be a long option of sbatch without dashes in front"),
        ({"partition": ["a", "b"]}, "partition: should be text, a whole number, true or null, not ['a', 'b']"),
        ({"comment": "two\nlines"}, "comment: should be text, a whole number, true or null"),
        ({"mem": 16}, "mem: should be a number with its unit, such as 16G, not 16"),
        ({"setup": "module load cuda"}, "setup: should be a list of texts"),
        ({"signal_delay": "long"}, "signal_delay: should be seconds before the time limit"),
        ({"stages": {"prepair": {}}}, "stages: prepair is no stage; should be one of prepare, "),
        ({"stages": {"prepare": {"time": "4h"}}}, "stages.prepare: time: should be minutes, HH:MM:SS or D-HH:MM:SS"),
        ({"python": 3}, "python: should be a command, such as 'apptainer exec image.sif python', not 3"),
        ({"cpus-per-task": "all"}, "cpus-per-task: should be a whole number of CPU cores, such as 8, not 'all'"),
        ({"time": "4h"}, "time: should be minutes, HH:MM:SS or D-HH:MM:SS"),
    ],
)
def test_wrong_options_are_one_line_with_file_and_key(options: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(json.dumps(options))  # JSON is YAML
    with pytest.raises(InputError, match=re.escape(f"{path}: {complaint}")) as told:
        read_options(path)
    assert "\n" not in str(told.value)
    with pytest.raises(InputError):
        check(options, "options")


def test_a_gpu_gets_four_cores_unless_told_otherwise() -> None:
    def cores(resources: Resources, stage: str = "joint", options: Mapping[str, int] = MappingProxyType({})) -> object:
        return parameters(options, resources, stage)["cpus_per_task"]

    assert cores(Resources("cuda")) == 4 and cores(Resources("cuda", threads=8, ranks=2)) == 16
    assert cores(Resources("cuda", ranks=2), "measure") == 4 and cores(Resources("cuda"), "prepare") == 1
    assert cores(Resources()) == 1 and cores(Resources("cuda"), options={"cpus-per-task": 2}) == 2
