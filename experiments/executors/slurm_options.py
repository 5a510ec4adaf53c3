"""``--slurm-options FILE.yaml``: options of sbatch under their own names, validated, as parameters of submitit."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blurdm.core.config_io import read_yaml
from blurdm.core.errors import InputError
from blurdm.core.runs import Resources

# A run that hits the limit continues in the next job; submitit's own default would be 5 minutes.
MINUTES = 60
SIGNAL_SECONDS = 90
LISTS = ("setup", "srun-args")
ARRAYS = {"array", "dependency", "job-name", "nodes", "ntasks", "ntasks-per-node", "requeue", "signal", "wait"}
FILES = {"chdir", "error", "open-mode", "output", "parsable", "wrap"}
RESERVED = ARRAYS | FILES
NAME = re.compile(r"[a-z][a-z0-9-]*")
GPUS = re.compile(r"gpus.*|gres")
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
        if not isinstance(key, str) or not NAME.fullmatch(_name(key)):
            raise InputError(f"{where}: should be a long option of sbatch without dashes in front, such as 'partition'")
        name = _name(key)
        if name in RESERVED:
            raise InputError(f"{where}: is set by the sweep (one task on one node, arrays, dependencies, requeue)")
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
        elif value is not None and (type(value) not in (str, int, bool) or "\n" in str(value)):
            raise InputError(f"{where}: should be text, a whole number, true or null, not {value!r}")
        elif name.startswith("mem") and name != "mem-bind" and not MEMORY.fullmatch(str(value)):
            raise InputError(f"{where}: should be a number with its unit, such as 16G, not {value!r}")


def parameters(options: Mapping[str, Any], resources: Resources) -> dict[str, Any]:
    """Checked ``options`` as parameters of submitit's Slurm executor, for one run with ``resources``."""
    named = {_name(key): value for key, value in options.items()}
    setup = list(named.pop("setup", []))
    # Since Slurm 22.05, srun no longer inherits this from its job, and the run would use a single core.
    setup.append('export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"')
    # `-m submitit...` would find this project only in the working directory, which is the user's.
    setup.append(f'export PYTHONPATH="{Path(__file__).parents[2]}${{PYTHONPATH:+:$PYTHONPATH}}"')
    result = {
        "time": minutes(named.pop("time", MINUTES), "time"),
        "signal_delay_s": named.pop("signal-delay", SIGNAL_SECONDS),
        "srun_args": named.pop("srun-args", []),
        "cpus_per_task": named.pop("cpus-per-task", resources.threads * resources.ranks),
        "setup": setup,
        "stderr_to_stdout": True,
    }
    passed = {name: value for name, value in named.items() if value is not None and value is not False}
    if resources.device.startswith("cuda") and not asks_for_gpus(options):
        passed["gpus-per-node"] = resources.ranks
    passed |= {"chdir": Path.cwd(), "requeue": True}
    return result | {"additional_parameters": passed}


def asks_for_gpus(options: Mapping[str, Any]) -> bool:
    """Whether ``options`` have any GPU option, including null for none (on nodes that are allocated whole)."""
    return any(GPUS.fullmatch(_name(key)) for key in options)


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
