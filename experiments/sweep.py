"""One question, all its rows, on whatever machines there are: ``python experiments/sweep.py --grid ablation_steps``."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # started as a script, from anywhere

from blurdm.cli.main import EXIT_INPUT, count, seeds
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.signals import EXIT_STOPPED
from experiments import verbs

EPILOG = """verbs: plan shows rows, shared work and the time to expect; run (the default) does it and prints the table;
status looks at a sweep from another shell; collect makes tables, plot and MLflow runs of what is finished so far;
cancel ends a sweep, whose state is kept. Running the same sweep again computes what is missing, and nothing twice."""


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0: every row is there; 1: a run broke; 2: wrong input, or rows missing for a reason; 143: stopped."""
    parsed = parser().parse_args(arguments)
    try:
        return int(getattr(verbs, parsed.verb)(parsed))
    except InputError as error:
        print(f"sweep: {error}", file=sys.stderr)
        return EXIT_INPUT
    except (StopRequested, KeyboardInterrupt) as stop:
        print(f"sweep: {stop or 'interrupted; start again to continue'}", file=sys.stderr)
        return EXIT_STOPPED


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sweep.py", description=__doc__, epilog=EPILOG)
    parser.add_argument("verb", nargs="?", default="run", choices=["plan", "run", "status", "collect", "cancel"])
    _add_question(parser.add_argument_group("which question"))
    _add_machines(parser.add_argument_group("where and how"))
    _add_places(parser.add_argument_group("places"))
    return parser


def _add_question(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--grid", required=True, help="a name in experiments/grids, or a YAML file")
    group.add_argument("--preset", help="demo (params.yaml), a name in experiments/presets, or a YAML file")
    group.add_argument("--seeds", type=seeds, help="0,1,2 instead of the preset's")
    group.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override for every row")
    group.add_argument("--name", help="of this sweep; default: the grid's, and a suffix if it is changed by the above")


def _add_machines(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--executor", default="processes", choices=["inline", "processes", "ray", "slurm"])
    group.add_argument("--max-concurrent", type=count, help="runs at a time (default: one per core; slurm: 8)")
    group.add_argument("--gpus-per-run", type=int, default=0, metavar="N", help="0: train on CPUs")
    group.add_argument("--ranks", type=count, metavar="N", help="processes that train a run (default: one per GPU)")
    group.add_argument("--threads", type=count, default=1, help="CPU threads of each rank; part of bit-exactness")
    group.add_argument("--retries", type=int, default=3, help="ray, slurm: how often a lost run is started again")
    group.add_argument("--scheduler", choices=["asha"], help="ray: stop hopeless runs of stage 3 early")
    group.add_argument("--ray-address", help="an existing cluster; 'auto' finds the one of this machine")
    group.add_argument("--slurm-options", type=Path, metavar="FILE.yaml", help="partition, account, time, ...")
    group.add_argument("--detach", action="store_true", help="slurm: submit and leave")
    group.add_argument("--dry-run", action="store_true", help="the same as plan")


def _add_places(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are")
    group.add_argument("--results", type=Path, default=Path("results"), help="where collected results go")
    group.add_argument("--reports", type=Path, default=Path("reports"), help="where tables and plots go")
    group.add_argument("--no-mlflow", action="store_true", help="do not send the rows to MLflow")


if __name__ == "__main__":
    sys.exit(main())
