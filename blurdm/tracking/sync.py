"""MLflow as a view of run folders: one experiment for the chain, and one per grid.

Sent as often as one likes, while runs are computed and afterwards. It never stops a run, and never raises.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from blurdm.core.arms import MODELS, STAGES
from blurdm.core.errors import InputError
from blurdm.core.ledger import Ledger, read_ledger, runs_root
from blurdm.tracking.folders import EVALUATION, Folders, has_begun
from blurdm.tracking.item import Details, Item, digest_of, files_digest
from blurdm.tracking.mirror import CHAIN, CHAIN_TAG, OnItem, SyncReport, ignore_item, opened, reported
from blurdm.tracking.pictures import demo_digests, shows_photos
from blurdm.tracking.rows import RowView, row_identity, row_item
from blurdm.tracking.send import GRID_TAG, read_object

__all__ = ["SyncReport", "sync", "sync_grid"]

STAGE_FILES = ("config.json", "provenance.json", "result.json")  # per-image rows are in the grid's own table
SHARED, SUMMARY = "shared", "summary"  # the parent of stage runs that several rows use; tables and plots
TABLE = "main.md"  # of the report: the note of the summary

Statistics = Mapping[str, Mapping[str, float | str]]


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
    """Bring MLflow at ``uri`` to the runs below ``runs`` that are finished, or trained right now.

    ``skip``: keys of runs that belong to another experiment. ``extra_artifacts`` (tables, figures) go to the run
    that is the parent of the others. ``images``: whether test images go with them; None: those of the demo alone.
    """
    with reported(uri, on_item) as report, opened(uri, experiment, repo, runs, report) as mirror:
        found = Folders(runs, "blurdm run", demo_digests(repo), {"blurdm.preset": "params.yaml"})
        folders = [folder for folder in begun(runs) if folder.name not in skip]
        pictured = {f for f in folders if (found.is_demo(f) if images is None else images)}
        show_all = bool(folders) and len(pictured) == len(folders) if images is None else images
        files = [file for file in extra_artifacts if show_all or not shows_photos(file)]
        mirror.send([*summary_item(found, folders, files), *chain_items(found, folders, pictured)], folders)
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
    """Make the experiment of the grid whose ledger is at ``path`` show its rows and runs.

    ``statistics``: final metrics by row name, intervals as ``<metric>.low`` and ``.high``, what differences decide as
    ``<metric>.verdict``; without them the means over seeds are sent, and what MLflow has of the others stays.
    ``extra_artifacts`` go to a run "summary". Runs of rows that the ledger no longer has are deleted (MLflow can
    restore them).
    """
    with reported(uri, on_item) as report:
        ledger, root = read_ledger(path), runs_root(path)
        with opened(uri, ledger.grid, repo, root, report, ledger.grid) as mirror:
            mirror.read_tracked()
            unfinished = {identity for identity, run in mirror.tracked.items() if run.status == "RUNNING"}
            found = grid_folders(ledger, root, demo_digests(repo))
            items = []
            if files := list(extra_artifacts):
                shown = partial(_artifacts, SUMMARY, files, found)
                items.append(Item(SUMMARY, digest_of(files_digest(files)), shown))
            items += grid_items(ledger, found, statistics, unfinished)
            addresses = [address for row in ledger.rows for address in row.addresses]
            rows = {row_identity(row.name) for row in ledger.rows}
            keep = {SHARED, SUMMARY, *rows, *(key for _, key in addresses)}
            mirror.send(items, [root / stage / key for stage, key in addresses], keep)
    return report


def begun(runs: Path) -> list[Path]:
    """Every run folder that is finished, or a training that has something to show."""
    return [folder for stage in STAGES for folder in sorted((runs / stage).glob("*")) if has_begun(folder)]


def summary_item(found: Folders, folders: Sequence[Path], files: Sequence[Path]) -> list[Item]:
    """The parent of all runs: tables and figures, the main table as its note, and the mean of every method."""
    if not files:
        return []
    measured = [f for f in folders if f.parent.name == "measure"]

    def details() -> Details:
        values: dict[str, list[float]] = {}
        for folder in measured:
            for name, value in read_object(folder / "result.json").get("metrics", {}).items():
                values.setdefault(name, []).append(value)
        means = {name: sum(numbers) / len(numbers) for name, numbers in values.items() if None not in numbers}
        note = next((file.read_text(encoding="utf-8") for file in files if file.name == TABLE), "")
        shown = _artifacts("Summary", files, found, measured[-1:] or folders[-1:])
        tags = {**shown.tags, CHAIN_TAG: files_digest(files)}
        return Details(**{**vars(shown), "tags": tags, "metrics": means, "note": note})

    return [Item(CHAIN, digest_of(files_digest(files), [f.name for f in measured]), details)]


def chain_items(found: Folders, folders: Sequence[Path], pictured: Collection[Path]) -> list[Item]:
    """What was measured below the summary, and what it was measured on below that; what is trained stands by itself."""
    measured = [f for f in folders if f.parent.name == "measure" and not is_broken(found, f)]
    users = Counter(f for m in measured for f in found.chain(m))
    parents: dict[Path, str] = {}
    for folder in measured:
        *behind, _ = found.chain(folder)
        models = [f for f in behind if f.parent.name in MODELS]
        for earlier in behind:
            if users[earlier] == 1 or earlier in models[-1:]:
                parents[earlier] = folder.name
    items = [found.item(f, CHAIN, images=f in pictured, tags=EVALUATION) for f in measured]
    for folder in (f for f in folders if f not in measured):
        parent = parents.get(folder) or (CHAIN if (folder / "result.json").is_file() else None)
        items.append(found.item(folder, parent, images=folder in pictured))
    return items


def is_broken(found: Folders, folder: Path) -> bool:
    """Whether the run cannot say what it was made from; sending it says why."""
    try:
        found.chain(folder)
    except InputError:
        return True
    return False


def grid_folders(ledger: Ledger, root: Path, demo: frozenset[str]) -> Folders:
    tags = {"blurdm.preset": ledger.preset, GRID_TAG: ledger.grid}
    failed = frozenset(run.key for run in ledger.failed)
    return Folders(root, f"sweep {ledger.grid}", demo, tags, failed)


def grid_items(
    ledger: Ledger, found: Folders, statistics: Statistics | None = None, unfinished: Collection[str] = ()
) -> list[Item]:
    """Every row that has something to show, and every run that has, below its row, or below SHARED if several use it.

    ``unfinished``: identities of rows that MLflow shows as running, to be closed if they are not.
    """
    users = Counter(address for row in ledger.rows for address in row.addresses)
    shared, items = Item(SHARED, digest_of(SHARED), partial(_artifacts, SHARED, [], found)), []
    for row in ledger.rows:
        view = RowView.of(ledger, row, found.root)
        if view.shows or row_identity(row.name) in unfinished:
            items.append(row_item(view, found, None if statistics is None else statistics.get(row.name, {})))
    owner = {address: row.name for row in ledger.rows for address in row.addresses}
    for (stage, key), name in owner.items():
        folder = found.root / stage / key
        if has_begun(folder):
            is_shared = users[stage, key] > 1
            parent, suffix = (SHARED, "") if is_shared else (row_identity(name), f" ({name})")
            items.append(found.item(folder, parent, suffix, files=STAGE_FILES))
    return [shared, *items]


def _artifacts(name: str, files: Sequence[Path], found: Folders, folders: Sequence[Path] = ()) -> Details:
    """A run that holds tables and figures; ``folders``: one of the runs that they are made from."""
    tags: dict[str, Any] = dict(found.tags)
    for folder in folders:
        tags |= found.common(folder, _provenance(folder))
    data = found.data(folders[-1]) if folders else None
    return Details(name, tags=tags, files=[(file, "report") for file in files], data=data)


def _provenance(folder: Path) -> dict[str, Any]:
    path = folder / "provenance.json"
    return read_object(path) if path.is_file() else {}
