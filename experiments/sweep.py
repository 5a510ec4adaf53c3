"""One question, all its rows, on whatever machines there are: ``python experiments/sweep.py --grid ablation_steps``."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # started as a script, from anywhere

from blurdm.core.command import Parser, count, name, run_command, seeds, threads, whole
from experiments import commands
from experiments.search import SAMPLES, TOP

EPILOG = """verbs: plan shows rows, shared work and the time to expect; run (the default) does it and prints the table;
status looks at a sweep from another shell; collect makes tables, plot and MLflow runs of what is finished so far;
cancel ends a sweep, whose state is kept. Running the same sweep again computes what is missing, and nothing twice."""


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code, as ``run_command`` has it. 0: all rows there; 1: a run broke; 2: or rows are missing."""

    def command() -> int:
        parsed = parser().parse_args(arguments)
        return int(getattr(commands, parsed.verb)(parsed))

    return run_command("sweep", command, arguments)


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sweep.py", description=__doc__, epilog=EPILOG)
    parser.add_argument("verb", nargs="?", default="run", choices=["plan", "run", "status", "collect", "cancel"])
    add = parser.add_argument_group("which question").add_argument
    add("--grid", required=True, help="a name in experiments/grids, or a YAML file")
    add("--preset", help="demo (params.yaml), a name in experiments/presets, or a YAML file")
    add("--seeds", type=seeds, help="0,1,2 instead of the preset's")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override for every row")
    add("--name", type=name, help="of this sweep; default: the grid's, and a suffix if it is changed by the above")
    add = parser.add_argument_group("search, for a grid of ranges").add_argument
    add("--search", choices=["optuna", "random"], help="how samples are chosen: Optuna's TPE, or at random")
    add("--samples", type=whole(1, 100_000), metavar="N", help=f"how many (default: {SAMPLES})")
    add("--against", choices=["macs", "seconds"], help="second objective, of restoring an image: Pareto front")
    add("--top", type=count, metavar="K", help=f"how many of the best are measured (default: {TOP})")
    add = parser.add_argument_group("where and how").add_argument
    add("--executor", default="processes", choices=["inline", "processes", "ray", "slurm"])
    add("--max-concurrent", type=count, help="runs at a time (default: one per core; slurm: 8)")
    add("--gpus-per-run", type=whole(0, 1024), default=0, metavar="N", help="0: train on CPUs")
    add("--ranks", type=count, metavar="N", help="processes that train a run (default: one per GPU)")
    add("--threads", type=threads, default=1, help="CPU threads of each rank; part of bit-exactness")
    add("--retries", type=whole(0, 1000), default=3, help="ray, slurm: how often a lost run is started again")
    add("--scheduler", choices=["asha"], help="ray: stop hopeless runs of stage 3 early")
    add("--ray-address", help="an existing cluster; 'auto' finds the one of this machine")
    add("--slurm-options", type=Path, metavar="FILE.yaml", help="partition, account, time, ...")
    add("--detach", action="store_true", help="slurm: submit and leave")
    add("--dry-run", action="store_true", help="the same as plan")
    add = parser.add_argument_group("places").add_argument
    add("--runs", type=Path, default=commands.DEFAULTS["runs"], help="where run folders are")
    add("--results", type=Path, default=commands.DEFAULTS["results"], help="where collected results go")
    add("--reports", type=Path, default=commands.DEFAULTS["reports"], help="where tables and plots go")
    add("--no-mlflow", action="store_true", help="do not send the rows to MLflow")
    return parser


if __name__ == "__main__":
    sys.exit(main())
