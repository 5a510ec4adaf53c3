"""A grid in MLflow: one experiment that mirrors its ledger, one run per row, the stage runs nested below.

Every run that is sent has an identity (a row's name, a stage run's key) and a digest of what it was made from. A sync
compares both with what MLflow has, so it sends what is missing or changed, once, and can be cut off anywhere.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from blurdm.core.ledger import Ledger, read_ledger, runs_root
from blurdm.core.store import locked
from blurdm.tracking.rows import RowView, send_row
from blurdm.tracking.send import files_digest, one_line, send_files, send_run
from blurdm.tracking.sync import MOST_FAILURES, PARENT_TAG, SyncReport, open_experiment, quiet, remember

if TYPE_CHECKING:
    from mlflow import MlflowClient

GRID_TAG, IDENTITY_TAG, CONTENT_TAG = "blurdm.grid", "blurdm.core.key", "blurdm.content"
STAGE_FILES = ("config.json", "provenance.json", "result.json")  # per-image rows are in the grid's own table
SHARED, SUMMARY = "shared", "summary"

Statistics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Known:
    """A run that MLflow has."""

    run_id: str
    content: str
    parent: str | None


@dataclass(frozen=True)
class Item:
    """A run that MLflow should have. ``content`` starts what its tag should be; ``parent`` is an identity."""

    identity: str
    content: str
    send: Callable[[dict[str, str]], str]
    parent: str | None = None


def sync_grid(
    path: Path, uri: str, extra_artifacts: Sequence[Path] = (), *, repo: Path, statistics: Statistics | None = None
) -> SyncReport:
    """Make the experiment of the grid whose ledger is at ``path`` show what is finished of it.

    ``statistics``: final metrics by row name, intervals as ``<metric>.low`` and ``.high``; without them the means over
    seeds are sent and intervals that MLflow has stay. ``extra_artifacts`` go to a run "summary". Runs of rows that the
    ledger no longer has are deleted (MLflow can restore them). Never raises: what went wrong is in the report.
    """
    report = SyncReport()
    try:
        ledger = read_ledger(path)
        with locked(path.parent / f".{ledger.grid}.mlflow"), quiet():
            client, experiment = open_experiment(uri, ledger.grid, repo)
            _Mirror(client, uri, experiment, ledger, runs_root(path), report).run(list(extra_artifacts), statistics)
    except Exception as error:  # whatever a tracking server does, the run folders are the truth and are complete
        report.failed.append(f"MLflow at {uri}: {one_line(error)}")
    return report


@dataclass
class _Mirror:
    """One sync: the runs that MLflow has by identity, and the report."""

    client: "MlflowClient"
    uri: str
    experiment: str
    ledger: Ledger
    root: Path
    report: SyncReport
    known: dict[str, Known] = field(default_factory=dict)

    def run(self, files: list[Path], statistics: Statistics | None) -> None:
        rows = [RowView.of(self.ledger, row, self.root) for row in self.ledger.rows]
        items = [*self._summary(files), *self._stages_parent(), *self._rows(rows, statistics), *self._stages()]
        self._read_known({item.identity: item.content for item in items})
        try:
            self._send_all(items)
        finally:
            folders = [self.root / stage / key for row in self.ledger.rows for stage, key in row.addresses]
            sent = {identity: found.run_id for identity, found in self.known.items()}
            remember(folders, self.uri, self.experiment, sent)

    def _send_all(self, items: Sequence[Item]) -> None:
        """What MLflow lacks, then away with what the ledger no longer has; stops after MOST_FAILURES."""
        for item in items:
            try:
                self._send(item)
            except Exception as error:
                self.report.failed.append(f"{item.identity}: {one_line(error)}")
                if len(self.report.failed) >= MOST_FAILURES:
                    self.report.failed.append("stopped here; sync again to send the rest")
                    return
        self._delete_foreign()

    def _summary(self, files: list[Path]) -> list[Item]:
        if not files:
            return []

        def send(tags: dict[str, str]) -> str:
            return send_files(self.client, self.experiment, files, tags, SUMMARY)

        return [Item(SUMMARY, files_digest(files), send)]

    def _stages_parent(self) -> list[Item]:
        """The run under which stage runs of several rows stand."""

        def send(tags: dict[str, str]) -> str:
            return send_files(self.client, self.experiment, [], tags, SHARED)

        return [Item(SHARED, self.ledger.grid, send)]

    def _rows(self, rows: list[RowView], statistics: Statistics | None) -> list[Item]:
        """Every row that has something to show; its content ends with a digest of the statistics."""
        items = []
        for view in (view for view in rows if view.shows):
            numbers = None if statistics is None else dict(statistics.get(view.row.name, {}))
            content = f"{_digest(view.content)}/{'' if numbers is None else _digest(numbers)}"

            def send(tags: dict[str, str], view: RowView = view, numbers: dict[str, float] | None = numbers) -> str:
                return send_row(self.client, self.experiment, view, numbers or {}, tags)

            items.append(Item(row_identity(view.row.name), content, send))
        return items

    def _stages(self) -> list[Item]:
        """Every finished training and evaluate run, below its row, or below "shared" if several rows use it."""
        addresses = {row.name: row.addresses for row in self.ledger.rows}
        users = Counter(address for mine in addresses.values() for address in mine)
        owner = {address: name for name, mine in addresses.items() for address in mine}
        items = []
        for stage, key in owner:
            folder = self.root / stage / key
            if not (folder / "result.json").is_file():
                continue

            def send(tags: dict[str, str], folder: Path = folder) -> str:
                return send_run(self.client, self.experiment, folder, tags, STAGE_FILES)

            alone = users[stage, key] == 1
            items.append(Item(key, key, send, row_identity(owner[stage, key]) if alone else SHARED))
        return items

    def _read_known(self, wanted: Mapping[str, str]) -> None:
        """What MLflow has whole. Half-sent runs and second copies are deleted: nothing stays RUNNING."""
        token = None
        while True:
            page = self.client.search_runs([self.experiment], max_results=1000, page_token=token)
            for run in page:
                identity = run.data.tags.get(IDENTITY_TAG)
                if identity is None:
                    continue  # somebody else's
                found = Known(run.info.run_id, run.data.tags.get(CONTENT_TAG, ""), run.data.tags.get(PARENT_TAG))
                other = self.known.get(identity)
                if run.info.status == "RUNNING" or (other and other.content.startswith(wanted.get(identity, "-"))):
                    self.client.delete_run(found.run_id)
                    continue
                if other:
                    self.client.delete_run(other.run_id)
                self.known[identity] = found
            token = page.token
            if not token:
                return

    def _send(self, item: Item) -> None:
        """Send the item unless MLflow has it; a changed one replaces the old one, which goes last."""
        have = self.known.get(item.identity)
        parent = self.known[item.parent].run_id if item.parent in self.known else None
        if have and have.content.startswith(item.content):
            if parent and have.parent != parent:
                self.client.set_tag(have.run_id, PARENT_TAG, parent)
            self.report.already.append(item.identity)
            return
        tags = {GRID_TAG: self.ledger.grid, IDENTITY_TAG: item.identity, CONTENT_TAG: item.content}
        run_id = item.send(tags | ({PARENT_TAG: parent} if parent else {}))
        self.known[item.identity] = Known(run_id, item.content, parent)
        self.report.sent.append(item.identity)
        if have:
            self.client.delete_run(have.run_id)

    def _delete_foreign(self) -> None:
        """Runs of rows that the ledger no longer has; of those that it has, nothing that was sent is ever withdrawn."""
        own = {SHARED, SUMMARY, *(row_identity(row.name) for row in self.ledger.rows)}
        own |= {key for row in self.ledger.rows for _, key in row.addresses}
        for identity, found in self.known.items():
            if identity not in own:
                self.client.delete_run(found.run_id)


def row_identity(name: str) -> str:
    return f"row: {name}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
