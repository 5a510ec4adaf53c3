"""One question, all its rows, on whatever machines there are: ``python experiments/sweep.py --grid ablation_steps``."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # started as a script, from anywhere

from blurdm.core.command import Parser, count, device, gpus, name, run_command, seconds, seeds, threads, whole
from blurdm.core.errors import InputError
from blurdm.core.places import place
from experiments import commands
from experiments.search import SAMPLES, TOP
from experiments.status import LINES

VERBS = ("plan", "run", "status", "logs", "collect", "cancel")
EPILOG = """verbs: plan shows rows, shared work and the time to expect; run (the default) does it and prints the table;
status looks at a sweep from another shell; logs ROW prints what the jobs of a row wrote; collect makes tables, plot and
MLflow runs of what is finished so far; cancel ends a sweep, whose state is kept. Running the same sweep again computes
what is missing, and nothing twice. A sweep with --until is found by the other verbs with --until too."""


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code, as ``run_command`` has it. 0: all rows there; 1: a run broke; 2: or rows are missing."""

    def command() -> int:
        parsed = parser().parse_args(arguments)
        if (parsed.row is None) == (parsed.verb == "logs"):
            raise InputError("logs ROW: should name a row, and no other verb; see sweep.py --help")
        return int(getattr(commands, parsed.verb)(parsed))

    return run_command("sweep", command, arguments)


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sweep.py", description=__doc__, epilog=EPILOG)
    parser.add_argument("verb", nargs="?", default="run", choices=VERBS)
    parser.add_argument("row", nargs="?", help="logs: whose, by the name that status prints")
    add = parser.add_argument_group("which question").add_argument
    add("--grid", required=True, help="a name in experiments/grids, or a YAML file")
    add("--preset", help="demo (params.yaml), a name in experiments/presets, or a YAML file")
    add("--seeds", type=seeds, help="0,1,2 instead of the preset's")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override for every row")
    add("--name", type=name, help="of this sweep; default: the grid's, and a suffix if it is changed by the above")
    add = parser.add_argument_group("seeds where they are needed").add_argument
    add("--until", choices=["decided"], help="add seeds, 3 to 12, only to rows that seeds can decide")
    add("--budget", metavar="30m|12h|60runs", help="what this call may take; the same again continues")
    add("--power", action="store_true", help="plan: what the grid can decide with its photos and seeds")
    add = parser.add_argument_group("search, for a grid of ranges").add_argument
    add("--search", choices=["optuna", "random"], help="how samples are chosen: Optuna's TPE, or at random")
    add("--samples", type=whole(1, 100_000), metavar="N", help=f"how many (default: {SAMPLES})")
    add("--against", choices=["macs", "seconds"], help="second objective, of restoring an image: Pareto front")
    add("--top", type=count, metavar="K", help=f"how many of the best are measured (default: {TOP})")
    add = parser.add_argument_group("where and how").add_argument
    add("--executor", default="processes", choices=["inline", "processes", "ray", "slurm"])
    add(
        "--max-concurrent",
        type=count,
        help="runs at a time (default: one per core, or what fits on GPUs; slurm: 8)",
    )
    add(
        "--device",
        type=device,
        default="auto",
        help="cpu, cuda, cuda:N alone, or auto: the GPUs here, if any",
    )
    add("--gpus-per-run", type=gpus, metavar="N", help="0.25: four runs share a GPU (default: as many as have memory)")
    add("--ranks", type=count, metavar="N", help="processes that train a run (default: one per GPU)")
    add("--nodes-per-run", type=count, metavar="N", help="slurm: that share the ranks of a training (default: 1)")
    add("--threads", type=threads, default=1, help="CPU threads of each rank; part of bit-exactness")
    add("--cache", type=place, metavar="FOLDER", help="of decoded images (RUNS/.frames); '$TMPDIR': on each node")
    add("--retries", type=whole(0, 1000), default=3, help="ray, slurm: how often a lost run is started again")
    add("--scheduler", choices=["asha"], help="ray: stop hopeless runs of stage 3 early")
    add("--ray-address", help="an existing cluster; 'auto' finds the one of this machine")
    add("--slurm-options", type=Path, metavar="FILE.yaml", help="partition, account, time, ...")
    add("--runs-per-job", type=count, metavar="N", help="slurm: small runs one after another in one job (default: 1)")
    add("--minutes-per-job", type=count, metavar="M", help="slurm: the same, as many as are expected to take so long")
    add("--poll", type=seconds, metavar="SECONDS", help="slurm: between looks at the queue, up to 4 times as long (30)")
    add("--detach", action="store_true", help="slurm: submit and leave")
    add("--dry-run", action="store_true", help="the same as plan")
    add("--lines", type=whole(0, 1_000_000), default=LINES, metavar="N", help=f"logs: the last N, 0: all ({LINES})")
    add = parser.add_argument_group("places").add_argument
    add("--runs", type=Path, default=commands.DEFAULTS["runs"], help="where run folders are")
    add("--results", type=Path, default=commands.DEFAULTS["results"], help="where collected results go")
    add("--reports", type=Path, default=commands.DEFAULTS["reports"], help="where tables and plots go")
    add("--no-mlflow", action="store_true", help="do not send the rows to MLflow")
    return parser


if __name__ == "__main__":
    sys.exit(main())
