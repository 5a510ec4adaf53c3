"""Progress of several runs, or of a long command: bars on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from blurdm.core.graph import Failure
from blurdm.core.progress import Progress
from blurdm.core.runs import Run

LINE_EVERY_SECONDS = 15.0


class Display:
    """A listener with one bar, or now and then one line, per run. Use as a context."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self.console = Console(stderr=True)
        self.bars = _bars(self.console)
        self.tasks: dict[str, TaskID] = {}
        self.first: dict[str, tuple[float, int]] = {}
        self.printed: dict[str, float] = {}

    def __enter__(self) -> "Display":
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def started(self, run: Run) -> None:
        """Nothing is shown before the run says something."""

    def progress(self, run: Run, progress: Progress) -> None:
        """Show ``progress`` of ``run``; a note is always printed as a line in a log."""
        label = self.labels.get(run.key, run.stage)
        if progress.unit == "note":
            self.console.print(f"{label}: {progress.note}", highlight=False, markup=False, soft_wrap=True)
        elif self.console.is_terminal:
            if run.key not in self.tasks:
                self.tasks[run.key] = self.bars.add_task(label, total=progress.total, numbers="")
            self.bars.update(
                self.tasks[run.key], completed=progress.step, total=progress.total, numbers=_numbers(progress)
            )
        else:
            self._line(run, label, progress)

    def ended(self, run: Run, failure: Failure | None) -> None:
        if run.key in self.tasks:
            self.bars.stop_task(self.tasks[run.key])

    def _line(self, run: Run, label: str, progress: Progress) -> None:
        now = time.monotonic()
        start, first = self.first.setdefault(run.key, (now, progress.step))
        due = now - self.printed.get(run.key, 0.0) > LINE_EVERY_SECONDS or progress.step == progress.total
        if not due:
            return
        self.printed[run.key] = now
        done, ahead = progress.step - first, progress.total - progress.step
        left = f"{(now - start) / done * ahead:.0f} s left" if done and ahead else ""
        text = f"{label}: {progress.unit} {progress.step}/{progress.total} {_numbers(progress)} {left}"
        print(" ".join(text.split()), file=sys.stderr, flush=True)


@contextmanager
def counter(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (done, total) that shows how far a command is; beside its bar, other lines can be printed."""
    console = Console(stderr=True)
    with _bars(console) as bars:
        task = bars.add_task(unit, total=None, numbers="")
        printed = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal printed
            bars.update(task, completed=done, total=max(done, total))
            if not console.is_terminal and time.monotonic() - printed > LINE_EVERY_SECONDS:
                printed = time.monotonic()
                print(f"{unit} {done}/{max(done, total)}", file=sys.stderr, flush=True)

        yield show


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # what goes to a file does not belong above the bars
    )


def _numbers(progress: Progress) -> str:
    shown = {"loss": "loss {:.4f}", "val_psnr": "val {:.2f} dB", "images_per_s": "{:.0f} images/s"}
    parts = [progress.note] + [text.format(progress.numbers[n]) for n, text in shown.items() if n in progress.numbers]
    return " ".join(part for part in parts if part)
