"""``--slurm-options FILE.yaml``: options of sbatch under their own names, validated, as parameters of submitit."""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from blurdm.core.arms import STAGES
from blurdm.core.config_io import read_yaml
from blurdm.core.errors import InputError
from blurdm.core.runs import Resources

# A run that hits the limit continues in the next job; submitit's own default would be 5 minutes.
MINUTES = 60
SIGNAL_SECONDS = 90
# After a task has ended, those on other nodes end with it, or else Slurm ends them: one that hangs would keep its job.
TASK_SECONDS = 60
CORES_PER_GPU = 4  # beside the one that launches: reading and cutting images, saving, the driver's threads
LISTS = ("setup", "srun-args")
PYTHON = "python"  # a command that starts Python on the nodes, such as one in a container
ARRAYS = {"array", "dependency", "job-name", "nodes", "ntasks", "ntasks-per-node", "requeue", "signal", "wait"}
FILES = {"chdir", "error", "open-mode", "output", "parsable", "wrap"}
RESERVED = ARRAYS | FILES
NAME = re.compile(r"[a-z][a-z0-9-]*")
STAGE_OPTIONS = "stages"
GPUS = re.compile(r"gpus.*|gres")
PER_GPU = re.compile(r"(cpus|mem)-per-gpu|gpu-.*")
COUNT = re.compile(r"^((?:.*:)?)\d+$")  # 4, a100:4
GRES_COUNT = re.compile(r"(\bgpu(?::[^:,]+)?:)\d+")  # gpu:4, gpu:a100:4,tmpdisk:100
MEMORY = re.compile(r"0|\d+[KMGT]")  # 0: all of the node
# [days-]hours[:minutes[:seconds]], or minutes[:seconds], as sbatch reads them.
DAYS = re.compile(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?")
CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+)")


def read_options(path: Path) -> dict[str, Any]:
    """Read the options in ``path``; InputError names the file and the wrong option."""
    options = read_yaml(path)
    check(options, str(path))
    return options


def check(options: Mapping[str, Any], source: str) -> None:
    """Raise InputError for a value that sbatch would misread, or an option that the sweep itself sets."""
    for key, value in options.items():
        where = f"{source}: {key}"
        if key == STAGE_OPTIONS:
            for stage, changes in _require_stages(value, where):
                check(changes, f"{where}.{stage}")
            continue
        if not isinstance(key, str) or not NAME.fullmatch(_name(key)):
            raise InputError(f"{where}: should be a long option of sbatch without dashes in front, such as 'partition'")
        name = _name(key)
        if name in RESERVED:
            raise InputError(
                f"{where}: is set by the sweep (nodes, see --nodes-per-run, tasks, arrays, dependencies, requeue)"
            )
        if name == "time":
            minutes(value, where)
        elif name in LISTS:
            if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
                raise InputError(
                    f"{where}: should be a list of texts, such as ['module load cuda/12.4'], not {value!r}"
                )
        elif name == "signal-delay":
            if type(value) is not int or value < 1:
                raise InputError(f"{where}: should be seconds before the time limit, such as 90, not {value!r}")
        elif name == PYTHON:
            if not isinstance(value, str) or not value.strip() or not value.isprintable():
                raise InputError(
                    f"{where}: should be a command, such as 'apptainer exec image.sif python', not {value!r}"
                )
        elif value is not None and (type(value) not in (str, int, bool) or "\n" in str(value)):
            raise InputError(f"{where}: should be text, a whole number, true or null, not {value!r}")
        elif name == "cpus-per-task" and not (type(value) is int and value > 0):
            raise InputError(f"{where}: should be a whole number of CPU cores, such as 8, not {value!r}")
        elif name.startswith("mem") and name != "mem-bind" and not MEMORY.fullmatch(str(value)):
            raise InputError(f"{where}: should be a number with its unit, such as 16G, not {value!r}")


def _require_stages(value: Any, where: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    if not isinstance(value, dict) or not all(isinstance(changes, dict) for changes in value.values()):
        raise InputError(f"{where}: should be options by stage, such as {{prepare: {{partition: cpu}}}}, not {value!r}")
    for stage in value:
        if stage not in STAGES:
            raise InputError(f"{where}: {stage} is no stage; should be one of {', '.join(STAGES)}")
    return value.items()


def parameters(options: Mapping[str, Any], resources: Resources, stage: str) -> dict[str, Any]:
    """Checked ``options`` as parameters of submitit's Slurm executor, for runs of ``stage`` in a sweep with
    ``resources``: a stage asks for what it can use of them.
    """
    named = {_name(key): value for key, value in options.items() if key != STAGE_OPTIONS}
    training, resources = resources, resources.for_stage(stage)
    if training != resources:
        named = {name: _share(name, value, training, resources) for name, value in named.items()}
    named.pop(PYTHON, None)
    named |= {_name(key): value for key, value in options.get(STAGE_OPTIONS, {}).get(stage, {}).items()}
    setup = list(named.pop("setup", []))
    # Since Slurm 22.05, srun no longer inherits this from its job, and the run would use a single core.
    setup.append('export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"')
    # `-m submitit...` would find this project only in the working directory, which is the user's.
    setup.append(f'export PYTHONPATH="{Path(__file__).parents[2]}${{PYTHONPATH:+:$PYTHONPATH}}"')
    several = {"nodes": resources.nodes, "ntasks_per_node": 1} if resources.nodes > 1 else {}
    result = several | {
        "time": minutes(named.pop("time", MINUTES), "time"),
        "signal_delay_s": named.pop("signal-delay", SIGNAL_SECONDS),
        "srun_args": [*named.pop("srun-args", []), *([f"--wait={TASK_SECONDS}"] if several else [])],
        "cpus_per_task": named.pop("cpus-per-task", _cores(resources)),
        "setup": setup,
        "stderr_to_stdout": True,
    }
    passed = {name: value for name, value in named.items() if value is not None and value is not False}
    if resources.device.startswith("cuda") and not any(GPUS.fullmatch(name) for name in named):
        passed["gpus-per-node"] = resources.ranks_per_node
    passed |= {"chdir": str(Path.cwd()), "requeue": True}
    return result | {"additional_parameters": passed}


def _cores(resources: Resources) -> int:
    """Default cores of a job on each node: the threads of its ranks, and at least CORES_PER_GPU for each GPU."""
    least = CORES_PER_GPU if resources.device.startswith("cuda") else 1
    return max(resources.threads, least) * resources.ranks_per_node


def _share(name: str, value: Any, training: Resources, resources: Resources) -> Any:
    """The part of an option's ``value`` (for ``training``) that ``resources`` of another stage need; None: nothing."""
    if resources.device != training.device and (GPUS.fullmatch(name) or PER_GPU.fullmatch(name)):
        return None
    if resources.ranks == training.ranks or value is None:
        return value
    if name == "cpus-per-task":
        return max(1, int(value) * resources.ranks_per_node // training.ranks_per_node)
    if name == "gres":
        return GRES_COUNT.sub(rf"\g<1>{resources.ranks}", str(value))
    return COUNT.sub(rf"\g<1>{resources.ranks}", str(value)) if GPUS.fullmatch(name) else value


def minutes(value: Any, where: str) -> int:
    """A time limit in sbatch's notation (``90``, ``01:30:00``, ``1-12:00:00``) as minutes, rounded up."""
    if type(value) is int and value > 0:
        return value
    text = value if isinstance(value, str) else ""
    days, clock = DAYS.fullmatch(text), CLOCK.fullmatch(text)
    if days:
        parts = [int(part or 0) for part in days.groups()]
    elif clock:
        parts = [0, *(int(part or 0) for part in clock.groups())]
    else:
        parts = [0, 0, int(text) if text.isdecimal() else 0, 0]
    total = math.ceil(((parts[0] * 24 + parts[1]) * 60 + parts[2]) + parts[3] / 60)
    if total == 0:
        raise InputError(f"{where}: should be minutes, HH:MM:SS or D-HH:MM:SS, such as 04:00:00, not {value!r}")
    return total


def _name(key: str) -> str:
    return key.replace("_", "-")
