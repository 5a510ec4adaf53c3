"""``python benchmarks/gpu_session.py``: the first minutes on a GPU, then training for as long as is given.

Eleven minutes of parts, the most important first: tests that need a GPU, waits, rates and steps of every form, what
batches, layouts, compilation and graphs change, a chain that is killed, arithmetic, a large photo. Each part has its
own time limit and is done once: what it prints is kept in --folder/PART.txt, the lines of ``gpu.py`` in steps.jsonl
(``python -m docs.claims`` makes tables of them). The same command goes on with what is missing.

``--train 20m`` then trains the model of the preset photos for so long; the next call continues it. ``--device cpu
--small`` tries all of it.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from benchmarks.gpu import FORMS, device_name
from benchmarks.interleave import REPOSITORY
from blurdm.core.command import Parser, config_file, run_command
from blurdm.core.config_io import load_config
from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes

GRACE = {"part": 5.0, "train": 120.0}  # seconds from the request to stop until a command is killed
LOGS = {"TORCH_LOGS": "cudagraphs,recompiles"}
COMPILED = [form for form in FORMS if form.startswith("bf16-")]
TRY = ["--small", "--batch", "2", "--crop", "32"]
UNITS = {"s": 1, "m": 60, "h": 3600}


class Part(NamedTuple):
    """A command with its time limit in seconds. One that ends with 0 is done; ``says``: so is one that ends with 1."""

    name: str
    limit: float
    command: list[str]
    environment: dict[str, str] = {}  # noqa: RUF012
    says: bool = False


def parts(options: argparse.Namespace) -> list[Part]:
    """All parts in their order."""
    place = ["--device", options.device, "--ground", str(options.ground), *(TRY if options.small else [])]

    def steps(*more: str) -> list[str]:
        quick = ["--steps", "1", "--pairs", "1"] if options.small else []
        return [*script("gpu"), *place, *quick, "--out", str(options.folder / "steps.jsonl"), *more]

    def check(name: str) -> list[str]:
        return [*script("gpu_checks"), name, *place]

    chosen = "cpu and restoring" if options.device == "cpu" else "cuda"
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen]
    batches = ["1", "3"] if options.small else ["5", "10", "40", "64"]
    pairs = ["--pairs", "1", "--batch", "2", "--crop", "32"] if options.small else []
    compiled = COMPILED if options.device == "cuda" else ["bf16"]
    return [
        Part("tests", 80, [*tests, "tests/training", "tests/models", "tests/restore"] if not options.small else
             [*tests, "tests/training/test_devices.py"]),
        Part("waits", 40, check("waits"), says=True),
        Part("steps", 80, steps("--stages", "3", "--forms", "plain", "fp32", "tf32", "bf16")),
        Part("batches", 60, steps("--stages", "3", "--forms", "bf16", "--batch", *batches)),
        Part("layout", 30, steps("--stages", "3", "--forms", "bf16", "--settings", "untuned", "contiguous")),
        Part("kernels", 20, check("kernels")),
        Part("compiled", 110, steps("--stages", "3", "--forms", *compiled), LOGS),
        Part("stage 2", 80, steps("--stages", "2", "--forms", "plain", "fp32", "tf32", "bf16", *compiled), LOGS),
        Part("fresh blur", 20, [*script("loader"), "--device", options.device, "--rounds", "1", *pairs]),
        Part("killed", 70, check("killed"), says=True),
        Part("arithmetic", 20, check("arithmetic")),
        Part("photo", 30, check("photo")),
        Part("stage 1", 20, steps("--stages", "1", "--forms", "plain", "bf16")),
    ]  # fmt: skip


def script(name: str) -> list[str]:
    return [sys.executable, str(REPOSITORY / "benchmarks" / f"{name}.py")]


def do(part: Part, options: argparse.Namespace) -> bool:
    """Run ``part`` unless it is done already; True if it is done then."""
    kept = options.folder / f"{part.name.replace(' ', '_')}.txt"
    done = kept.with_suffix(".done")
    if done.exists():
        print(f"== {part.name}: done before", flush=True)
        return True
    limit = part.limit * options.patience
    print(f"== {part.name}, at most {limit:.0f} s", flush=True)
    started = time.monotonic()
    code = run_for(limit, GRACE["part"], part.command, kept, part.environment)
    how = "ended at its limit" if code is None else "done" if code == 0 else f"exit code {code}"
    print(f"== {part.name}: {how}, {time.monotonic() - started:.0f} s", flush=True)
    if code == 0 or (part.says and code == 1):
        write_bytes(done, b"")
        return True
    return False


def run_for(
    limit: float, grace: float, command: list[str], kept: Path, environment: dict[str, str] | None = None
) -> int | None:
    """The exit code of ``command``, or None if it was asked to end after ``limit`` seconds, and killed ``grace`` later.

    What it prints is shown, and added to the file ``kept``.
    """
    kept.parent.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    with (
        kept.open("ab") as file,
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it starts is ended with it
        ) as process,
    ):
        late: list[bool] = []
        watcher = threading.Thread(target=_end_after, args=(limit, grace, process, ended, late), daemon=True)
        watcher.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                file.flush()
                print(line.decode(errors="replace"), end="", flush=True)
            process.wait()
        finally:
            ended.set()
            _kill(process)
    return None if late else process.returncode


def _end_after(
    limit: float, grace: float, process: "subprocess.Popen[bytes]", ended: threading.Event, late: list[bool]
) -> None:
    if not ended.wait(limit):
        late.append(True)
        process.terminate()  # it alone: it asks what it has started
        if not ended.wait(grace):
            _kill(process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End ``process`` and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def train(options: argparse.Namespace) -> bool:
    """Train the model of ``--config`` for ``--train`` seconds, photos first; True unless something failed."""
    config, kept = load_config(options.config), options.folder / "train.txt"
    command = [sys.executable, "-m", "blurdm"]
    if config.synthesis and not Path(config.data.root).is_dir():
        photos = [*command, "data", "photos", "--set", "general"]
        if run_for(options.train, GRACE["part"], photos, kept) != 0:
            return False
    run = ["run", "joint", "--config", str(options.config), "--runs", str(options.runs), "--device", options.device]
    code = run_for(options.train, GRACE["train"], [*command, *run, "--no-mlflow"], kept)
    said = {None: "stopped at its limit; the same command continues", 0: "finished"}.get(code, f"exit code {code}")
    print(f"== training {options.config}: {said}", flush=True)
    return code in (None, 0)


def duration(text: str) -> float:
    """Seconds from ``90s``, ``20m`` or ``2h`` on a command line."""
    match = re.fullmatch(r"([0-9]{1,6})([smh])", text)
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f"'{text}' should be a time such as 90s, 20m or 2h")
    return float(int(match[1]) * UNITS[match[2]])


def parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try this (%(default)s)")
    parser.add_argument("--small", action="store_true", help="small networks and few steps, to try this")
    parser.add_argument("--folder", type=Path, default=Path("results/gpu"), help="of what is printed (%(default)s)")
    parser.add_argument("--ground", type=Path, default=Path("runs/.gpu"), help="of pairs to train on (%(default)s)")
    parser.add_argument("--only", nargs="*", metavar="PART", help="these parts alone; none: only --train")
    parser.add_argument("--patience", type=int, default=1, help="multiplies every limit (%(default)s)")
    parser.add_argument("--train", type=duration, help="afterwards, for so long: 20m")
    parser.add_argument("--config", type=config_file, default="photos", help="what to train (%(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are (%(default)s)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    def session() -> int:
        options = parser().parse_args(arguments)
        device_name(options.device)
        options.folder, options.ground = options.folder.absolute(), options.ground.absolute()
        every = {part.name: part for part in parts(options)}
        chosen = list(every) if options.only is None else options.only
        if unknown := [name for name in chosen if name not in every]:
            raise InputError(f"--only {unknown[0]}: no such part; known: {', '.join(every)}")
        missing = [name for name in chosen if not do(every[name], options)]
        if missing:
            print(f"not done: {', '.join(missing)}; the same command tries again", flush=True)
        trained = options.train is None or train(options)
        return int(bool(missing) or not trained)

    return run_command("gpu_session", session, arguments)


if __name__ == "__main__":
    sys.exit(main())
