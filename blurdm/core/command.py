"""Parts of every command line: the parser, checks of numbers, names and places, and the last handler of errors."""

import argparse
import io
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from blurdm.core.encoding import use_utf8
from blurdm.core.errors import InputError, StopRequested, machine_error, one_line
from blurdm.core.signals import exit_stopped

EXIT_INPUT = 2
LARGEST_SEED = 2**63 - 1
NAME_LENGTH = 100
PARAMS, PRESETS = Path("params.yaml"), Path("experiments/presets")  # below the current folder


class Parser(argparse.ArgumentParser):
    """Raises InputError for a wrong command line; so do the parsers of its commands."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def run_command(program: str, command: Callable[[], int | None], arguments: Sequence[str] | None = None) -> int:
    """The exit code of ``command``, which has ``arguments``, or those of this process.

    2: wrong input, or the machine refused something, one line; 130: Ctrl-C;
    143: stopped on request, state saved; 141, quietly: whoever read the output has left.
    """
    if arguments is None:
        use_utf8()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files are any bytes
    try:
        try:
            code, line = _outcome(command)
        finally:
            sys.stdout.flush()  # here, where a closed pipe is expected, and not when Python ends
        if line:
            print(f"{program}: {one_line(line)}", file=sys.stderr, flush=True)
        return code
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        return 128 + signal.SIGPIPE


def _outcome(command: Callable[[], int | None]) -> tuple[int, str]:
    """The exit code of ``command``, and what is to be said about it."""
    try:
        return command() or 0, ""
    except InputError as error:
        return EXIT_INPUT, str(error)
    except StopRequested as stop:
        return exit_stopped(), str(stop) or "stopped"
    except KeyboardInterrupt:
        return 128 + signal.SIGINT, "interrupted"
    except BrokenPipeError:
        raise
    except Exception as error:
        if (line := machine_error(error)) is None:
            raise
        return EXIT_INPUT, line


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number from ``low`` to ``high`` on a command line."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"'{text}' should be a whole number from {low} to {high}")
        return int(text)

    return parse


count = whole(1, 4096)  # of processes, runs, pixels of a side
threads = whole(1, 1024)
seed = whole(0, LARGEST_SEED)


def gpus(text: str) -> float:
    """GPUs of a run on a command line: a whole number, or the share of one that it uses."""
    if re.fullmatch(r"0\.[0-9]{1,2}", text) and float(text):
        return float(text)
    try:
        return whole(0, 1024)(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"'{text}' should be a whole number from 0 to 1024, or a share of a GPU from 0.01 to 0.99"
        ) from None


def seeds(text: str) -> tuple[int, ...]:
    """``0,1,2`` on a command line, all different."""
    numbers = tuple(seed(part) for part in text.split(","))
    if len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"'{text}' names a seed twice")
    return numbers


def seconds(text: str) -> float:
    """A finite time of 0 s or more on a command line."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' should be a number of seconds, 0 or more")
    return number


def pixels(text: str) -> float:
    """A distance above 0, at most 100 px, on a command line."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= 100:
        raise argparse.ArgumentTypeError(f"'{text}' should be a number of px above 0, at most 100")
    return number


def odd_range(text: str) -> tuple[int, int]:
    """``7-13``, or ``9`` for ``9-9``, on a command line: from 3 to 255, with an odd number among them."""
    match = re.fullmatch(r"([0-9]{1,3})(?:-([0-9]{1,3}))?", text)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 3 <= low <= high <= 255 or (low == high and low % 2 == 0):
        raise argparse.ArgumentTypeError(
            f"'{text}' should be LOW-HIGH from 3 to 255 with an odd number among them, such as 7-13"
        )
    return low, high


def device(text: str) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1`` on a command line; ``stages.devices`` chooses and checks it."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", text):
        raise argparse.ArgumentTypeError(f"'{text}' should be auto, cpu, cuda or cuda:N, such as cuda:0")
    return text


def size(text: str) -> tuple[int, int]:
    """``720x1280``, height and width of at least 16, on a command line."""
    match = re.fullmatch(r"([0-9]{2,5})x([0-9]{2,5})", text)
    sides = [int(side) for side in match.groups()] if match else [0, 0]
    if min(sides) < 16:
        raise argparse.ArgumentTypeError(f"'{text}' should be HEIGHTxWIDTH in px, each from 16 to 99999")
    return sides[0], sides[1]


def config_file(text: str) -> Path:
    """A config on a command line: a file, or the name of one in PRESETS below the current folder."""
    if "/" in text or text.endswith((".yaml", ".yml")) or Path(text).exists():
        return Path(text)
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if text not in names:
        known = f", or one of {', '.join(names)}" if names else ""
        raise argparse.ArgumentTypeError(f"'{text}' should be a YAML file{known}")
    return PRESETS / f"{text}.yaml"


def config_pointer(runs: Path, config: Path, stage: str) -> Path:
    """The pointer to the runs of ``stage`` for a config other than params.yaml."""
    return runs / "configs" / config.stem / f"{stage}.json"


def name(text: str) -> str:
    """A name that is also that of files, on a command line."""
    require_name(text)
    return text


def require_name(text: str) -> None:
    """InputError for a name that would not be that of one file in its folder."""
    if not 0 < len(text.encode(errors="surrogateescape")) <= NAME_LENGTH or text.startswith((".", "-")):
        raise InputError(f"name '{text}': should have 1 to {NAME_LENGTH} bytes and no dot or dash in front")
    if not text.isprintable() or set(text) & set("/\\"):
        raise InputError(f"name '{text}': should have no slashes and no characters that do not print")


def require_folder_to_write(option: str, folder: Path) -> None:
    """InputError unless files can be written to ``folder``, which may not exist yet."""
    _require_writable(f"{option} {folder}", folder)


def require_file_to_write(option: str, file: Path) -> None:
    """InputError unless ``file`` can be written, which may not exist yet."""
    if file.is_dir():
        raise InputError(f"{option} {file}: is a folder; should be a file")
    _require_writable(f"{option} {file}", file.parent)


def _require_writable(typed: str, folder: Path) -> None:
    place = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not place.is_dir():
        raise InputError(f"{typed}: {place} is no folder; should be one")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{typed}: {place} cannot be written to; should be a folder of yours")
