"""MLflow as a view of finished runs: one experiment for the chain, and one per grid.

Sent after the fact, as often as one likes. It never stops a run, and never raises.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from blurdm.core.ledger import Ledger, read_ledger, runs_root
from blurdm.tracking.mirror import CHAIN_TAG, Item, OnItem, SyncReport, ignore_item, opened, reported
from blurdm.tracking.pictures import demo_digests, shows_photos
from blurdm.tracking.rows import RowView, send_row
from blurdm.tracking.send import files_digest, read_object, send_files, send_run

__all__ = ["SyncReport", "sync", "sync_grid"]

STAGE_FILES = ("config.json", "provenance.json", "result.json")  # per-image rows are in the grid's own table
SHARED, SUMMARY = "shared", "summary"  # the parent of stage runs that several rows use; tables and plots

Statistics = Mapping[str, Mapping[str, float]]


def sync(
    runs: Path,
    uri: str,
    experiment: str,
    extra_artifacts: Sequence[Path] = (),
    *,
    repo: Path,
    skip: Collection[str] = (),
    images: bool | None = None,
    on_item: OnItem = ignore_item,
) -> SyncReport:
    """Send every finished run below ``runs`` that MLflow at ``uri`` lacks; a half-sent one is sent again.

    ``skip``: keys of runs that belong to another experiment. ``extra_artifacts`` (tables, figures) make a summary run
    "chain", once per content, which becomes the parent of the runs. ``images``: whether test images go with them; None:
    those of the demo alone.
    """
    with reported(uri, on_item) as report, opened(uri, experiment, repo, runs, report) as mirror:
        folders = sorted(path.parent for path in runs.glob("*/*/result.json") if path.parent.name not in skip)
        pictured = _pictured(folders, repo, images)
        show_all = bool(folders) and len(pictured) == len(folders) if images is None else images
        items, parent = [], None
        if files := [file for file in extra_artifacts if show_all or not shows_photos(file)]:
            parent = files_digest(files)
            send = partial(send_files, files=files, name=f"chain {parent[:8]}")
            items.append(Item(parent, parent, send, tags={CHAIN_TAG: parent}, name="chain"))
        for folder in folders:
            send = partial(send_run, folder=folder, images=folder in pictured)
            items.append(Item(folder.name, folder.name, send, parent))
        mirror.send(items, folders)
    return report


def sync_grid(
    path: Path,
    uri: str,
    extra_artifacts: Sequence[Path] = (),
    *,
    repo: Path,
    statistics: Statistics | None = None,
    on_item: OnItem = ignore_item,
) -> SyncReport:
    """Make the experiment of the grid whose ledger is at ``path`` show its finished rows and runs.

    ``statistics``: final metrics by row name, intervals as ``<metric>.low`` and ``.high``; without them the means over
    seeds are sent and intervals that MLflow has stay. ``extra_artifacts`` go to a run "summary". Runs of rows that the
    ledger no longer has are deleted (MLflow can restore them).
    """
    with reported(uri, on_item) as report:
        ledger, root = read_ledger(path), runs_root(path)
        with opened(uri, ledger.grid, repo, root, report, ledger.grid) as mirror:
            items = []
            if files := list(extra_artifacts):
                items.append(Item(SUMMARY, files_digest(files), partial(send_files, files=files, name=SUMMARY)))
            items.append(Item(SHARED, ledger.grid, partial(send_files, files=[], name=SHARED)))
            items += [*row_items(ledger, root, statistics), *stage_items(ledger, root)]
            addresses = [address for row in ledger.rows for address in row.addresses]
            rows = {row_identity(row.name) for row in ledger.rows}
            keep = {SHARED, SUMMARY, *rows, *(key for _, key in addresses)}
            mirror.send(items, [root / stage / key for stage, key in addresses], keep)
    return report


def _pictured(folders: Sequence[Path], repo: Path, images: bool | None) -> set[Path]:
    """The run folders whose test images may be sent."""
    if images is not None:
        return set(folders) if images else set()
    demo = demo_digests(repo)
    origins = ((folder, folder / "provenance.json") for folder in folders)
    return {folder for folder, origin in origins if origin.is_file() and read_object(origin).get("data_digest") in demo}


def row_items(ledger: Ledger, root: Path, statistics: Statistics | None) -> list[Item]:
    """Every row that has something to show. Its content ends with a digest of its statistics."""
    items = []
    for view in (RowView.of(ledger, row, root) for row in ledger.rows):
        if not view.shows:
            continue
        numbers = dict((statistics or {}).get(view.row.name, {}))
        content = f"{_digest(view.content)}/{'' if statistics is None else _digest(numbers)}"
        items.append(Item(row_identity(view.row.name), content, partial(send_row, view=view, statistics=numbers)))
    return items


def stage_items(ledger: Ledger, root: Path) -> list[Item]:
    """Every finished run of a row, below its row, or below SHARED if several rows use it."""
    users = Counter(address for row in ledger.rows for address in row.addresses)
    owner = {address: row.name for row in ledger.rows for address in row.addresses}
    items = []
    for (stage, key), row in owner.items():
        folder = root / stage / key
        if (folder / "result.json").is_file():
            parent = row_identity(row) if users[stage, key] == 1 else SHARED
            items.append(Item(key, key, partial(send_run, folder=folder, files=STAGE_FILES), parent))
    return items


def row_identity(name: str) -> str:
    return f"row: {name}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
