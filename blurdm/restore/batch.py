"""``blurdm deblur``: many photos, serially or in parallel; a bad one stops no other and is reported at the end."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from blurdm.core.allocator import keep_freed_memory
from blurdm.core.errors import InputError
from blurdm.core.signals import stop_with_parent
from blurdm.restore.compare import MOST_PAIRS, Preview, make_preview, write_page
from blurdm.restore.encoding import encode_photo
from blurdm.restore.files import ManifestEntry, Task, find_tasks, is_done, open_results, permissions, shown, store
from blurdm.restore.loading import load
from blurdm.restore.photo import decode_photo, read_content, size_of
from blurdm.restore.restorer import OnTile, Restorer, ignore_tiles

EXIT_FAILED = 2
FURTHER_PARTS = "gain maps, depth maps, motion clips or further pictures behind a photo"
MOST_NAMES = 5  # of a kind of skipped files


@dataclass(frozen=True)
class Outcome:
    """The result of one photo: ``failure`` is None, or an error in one line; ``partial`` as that of a Photo."""

    task: Task
    note: str = ""  # what was done
    failure: str | None = None
    preview: Preview | None = None
    partial: bool = False


def deblur(
    inputs: Sequence[Path],
    out: Path | None,
    options: Mapping[str, Any],
    jobs: int = 1,
    threads: int | None = None,
    compare: bool = False,
) -> int:
    """Restore every photo of ``inputs`` with ``load(**options)``; exit code 0, or 2 if any photo failed."""
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    tasks, skipped = find_tasks(inputs, out)
    restorer = load(**options)
    print(restorer.describe(), file=sys.stderr)
    manifests = {task.out: open_results(task.out, task.below) for task in {task.out: task for task in tasks}.values()}
    work = [(task, manifests[task.out].get(task.name, []), compare) for task in tasks]
    outcomes = []
    with _progress(len(work)) as (on_tile, report):
        serial = (restore_file(restorer, item, on_tile) for item in work)
        for outcome in serial if jobs == 1 else _in_parallel(work, _shared(options, restorer, jobs), jobs):
            report(outcome)
            outcomes.append(outcome)
    partial = [outcome.task.photo for outcome in outcomes if outcome.partial]
    for kind, paths in (*skipped.items(), *([(FURTHER_PARTS, partial)] if partial else [])):
        rest = f", ... ({len(paths)} in all)" if len(paths) > MOST_NAMES else ""
        print(f"not restored, {kind}: {', '.join(map(shown, paths[:MOST_NAMES]))}{rest}", file=sys.stderr)
    failed = [outcome for outcome in outcomes if outcome.failure]
    if failed and len(outcomes) > 1:
        print(f"{len(failed)} of {len(outcomes)} photos were not restored:", file=sys.stderr)
    for outcome in failed:
        print(f"blurdm: {outcome.failure}", file=sys.stderr)
    _write_pages({outcome.task: outcome.preview for outcome in outcomes if outcome.preview}, tasks, manifests)
    return EXIT_FAILED if failed else 0


def _shared(options: Mapping[str, Any], restorer: Restorer, jobs: int) -> dict[str, Any]:
    """``options`` of each of several workers; those on a GPU share what ``restorer`` may take of it."""
    return {**options, "gpu_memory": restorer.gpu_memory and restorer.gpu_memory // jobs}


def _write_pages(
    previews: Mapping[Task, Preview], tasks: Sequence[Task], manifests: Mapping[Path, dict[str, list[ManifestEntry]]]
) -> None:
    """Write a page into each folder of results, with its photos in the order of ``tasks``."""
    for folder in dict.fromkeys(task.out for task in tasks if task in previews):
        of_folder = [task for task in tasks if task.out == folder and task in previews]
        path = write_page({task: previews[task] for task in of_folder[:MOST_PAIRS]}, manifests[folder])
        left_out = len(of_folder) - MOST_PAIRS
        rest = f" (without the last {left_out})" if left_out > 0 else ""
        print(f"before and after: {shown(path)}{rest}")


Work = tuple[Task, list[ManifestEntry], bool]


def restore_file(restorer: Restorer, work: Work, on_tile: OnTile = ignore_tiles) -> Outcome:
    """Restore one photo file, unless that was done before; errors are in the outcome."""
    task, entries, compare = work
    try:
        budget = restorer.photo_budget()
        content = read_content(task.photo, budget)
        note = "was there"
        skipped = is_done(task, content, restorer.settings, entries)
        if skipped and not compare:
            return Outcome(task, note)
        photo = decode_photo(content, shown(task.photo), budget)
        if skipped:
            pixels = decode_photo(read_content(task.target, budget), shown(task.target), budget).pixels
        else:
            restored = restorer.restore_photo(photo.pixels, on_tile, size_of(photo))
            pixels, note = restored.pixels, restored.note
            store(task, content, restorer.settings, encode_photo(photo, pixels), entries, permissions(task.photo))
        preview = make_preview(task.name, photo, pixels) if compare else None
        return Outcome(task, note, preview=preview, partial=photo.partial)
    except InputError as error:
        message = shown(str(error))
        return Outcome(task, failure=message if shown(task.photo) in message else f"{shown(task.photo)}: {message}")
    except Exception as error:
        # a file name that the disk rejects, metadata of any kind that the encoder rejects: only this photo fails
        return Outcome(task, failure=f"{shown(task.photo)}: {shown(type(error).__name__)}: {shown(str(error))[:200]}")


_restorer: Restorer | None = None  # in a worker process


def _start_worker(options: Mapping[str, Any], threads: int) -> None:
    global _restorer
    stop_with_parent()
    keep_freed_memory()
    torch.set_num_threads(threads)
    _restorer = load(**options)


def _restore_in_worker(work: Work) -> Outcome:
    assert _restorer is not None
    return restore_file(_restorer, work)


def _in_parallel(work: Sequence[Work], options: Mapping[str, Any], jobs: int) -> Iterator[Outcome]:
    """Restore in ``jobs`` processes, each with its own model and as many threads as a serial run: the same bits."""
    start = (dict(options), torch.get_num_threads())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(work)), context, _start_worker, start)
    try:
        # Ctrl-C reaches every process of a terminal; workers, which inherit this mask, are ended below.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            futures: list[Future[Outcome]] = [pool.submit(_restore_in_worker, item) for item in work]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for future in as_completed(futures):
            yield future.result()
    except (KeyboardInterrupt, GeneratorExit):
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    except BrokenProcessPool:
        raise InputError(
            "a worker process died (out of memory?); give less --memory or fewer --jobs. What is done is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _progress(total: int) -> Iterator[tuple[OnTile, Callable[[Outcome], None]]]:
    """A progress bar if stderr is a terminal; always one line per photo on stdout."""
    console = Console(stderr=True)
    columns = (TextColumn("restoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        # counted in thousandths of a photo, so that the tiles of a large one move it too
        job = bar.add_task("", total=total)
        done = 0

        def on_tile(tile: int, tiles: int) -> None:
            bar.update(job, completed=done + tile / (tiles + 1))

        def report(outcome: Outcome) -> None:
            nonlocal done
            done += 1
            bar.update(job, completed=done)
            if outcome.failure is None:
                bar.console.file.flush()
                print(f"{shown(outcome.task.photo)} -> {shown(outcome.task.target)} ({outcome.note})", flush=True)

        yield on_tile, report
