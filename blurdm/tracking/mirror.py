"""Compares what MLflow has with what it should have, and sends the difference.

Each item has an identity (a run's key, a row's name) and a digest of what it was made from; both are stored as tags.
An item that is missing or has changed is sent once, and a sync that was interrupted anywhere is completed by the next.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from blurdm.core.addresses import public_uri
from blurdm.core.errors import InputError
from blurdm.core.store import locked, read_json, write_json
from blurdm.tracking.client import open_experiment, quiet
from blurdm.tracking.send import KEY_TAG, error_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

SENT = "mlflow.json"  # below the run folders: the MLflow run of each finished run, by key
CHAIN_TAG, GRID_TAG, PARENT_TAG = "blurdm.chain", "blurdm.grid", "mlflow.parentRunId"
IDENTITY_TAG, CONTENT_TAG = "blurdm.identity", "blurdm.content"
MAX_FAILURES = 3  # so that a server that went away is not asked once per run


OnItem = Callable[[str, str], object]


def ignore_item(outcome: str, entry: str) -> None:
    """Do nothing."""


@dataclass
class SyncReport:
    """Names of the items that were ``sent`` and that MLflow had ``already``, and one line per failure.

    ``on_item`` gets each entry, after the name of its list. ``away``: the server could not be asked at all.
    """

    sent: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    on_item: OnItem = ignore_item
    away: bool = False

    def add(self, outcome: str, entry: str) -> None:
        getattr(self, outcome).append(entry)
        self.on_item(outcome, entry)


@dataclass(frozen=True)
class Item:
    """A run that MLflow should have.

    ``content``: prefix of its content tag. ``send(client, experiment_id, tags=...)`` returns the id of the new run.
    ``parent``: identity of the run that it is nested below. ``name``: in reports, the identity by default.
    """

    identity: str
    content: str
    send: Callable[..., str]
    parent: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class TrackedRun:
    """A run that MLflow has."""

    run_id: str
    content: str
    parent: str | None


@dataclass
class Mirror:
    """One experiment in MLflow. It handles only runs with exactly its ``grid`` tag; others' runs are left alone."""

    uri: str
    client: "MlflowClient"
    experiment_id: str
    grid: str | None
    report: SyncReport
    tracked: dict[str, TrackedRun] = field(default_factory=dict)

    def send(self, items: Sequence[Item], folders: Sequence[Path], keep: Collection[str] | None = None) -> None:
        """Send ``items`` that MLflow lacks or has with other content; give up after MAX_FAILURES failures.

        Then delete runs whose identities are not in ``keep`` (None: keep all). SENT beside the run ``folders`` records
        where MLflow has each of them, also when the sync fails.
        """
        self._read_tracked({item.identity: item.content for item in items})
        try:
            for item in items:
                try:
                    self._send(item)
                except Exception as error:
                    self.report.add("failed", f"{item.name or item.identity}: {error_line(error, self.uri)}")
                    if len(self.report.failed) >= MAX_FAILURES:
                        self.report.add("failed", "stopped here; sync again to send the rest")
                        return
            for identity, run in self.tracked.items():
                if keep is not None and identity not in keep:
                    self.client.delete_run(run.run_id)
        finally:
            self._remember(folders)

    def _read_tracked(self, contents: Mapping[str, str]) -> None:
        """Read the complete runs of the experiment, and delete half-sent ones and duplicates.

        Of duplicates the one whose content starts as ``contents`` has it is kept. A run without the tags of a mirror,
        as earlier versions sent the chain, is identified by its key.
        """
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], max_results=1000, page_token=token)
            for run in page:
                tags = run.data.tags
                identity = tags.get(IDENTITY_TAG) or tags.get(KEY_TAG) or tags.get(CHAIN_TAG)
                if identity is None or tags.get(GRID_TAG) != self.grid:
                    continue
                duplicate = self.tracked.get(identity)
                is_current = duplicate and duplicate.content.startswith(contents.get(identity, "-"))
                if run.info.status == "RUNNING" or is_current:
                    self.client.delete_run(run.info.run_id)
                    continue
                if duplicate:
                    self.client.delete_run(duplicate.run_id)
                content = tags.get(CONTENT_TAG, identity)
                self.tracked[identity] = TrackedRun(run.info.run_id, content, tags.get(PARENT_TAG))
            token = page.token
            if not token:
                return

    def _send(self, item: Item) -> None:
        """Send the item unless MLflow has it. A changed one replaces the old run, which is deleted last."""
        run = self.tracked.get(item.identity)
        parent = self.tracked[item.parent].run_id if item.parent in self.tracked else None
        if run and run.content.startswith(item.content):
            if parent and run.parent != parent:
                self.client.set_tag(run.run_id, PARENT_TAG, parent)
            self.report.add("already", item.name or item.identity)
            return
        tags = {**item.tags, IDENTITY_TAG: item.identity, CONTENT_TAG: item.content}
        tags |= {name: value for name, value in ((GRID_TAG, self.grid), (PARENT_TAG, parent)) if value}
        run_id = item.send(self.client, self.experiment_id, tags=tags)
        self.tracked[item.identity] = TrackedRun(run_id, item.content, parent)
        self.report.add("sent", item.name or item.identity)
        if run:
            self.client.delete_run(run.run_id)

    def _remember(self, folders: Sequence[Path]) -> None:
        if not folders:
            return
        path = folders[0].parent.parent / SENT
        earlier = read_json(path) if path.is_file() else {}
        place = {"uri": public_uri(self.uri), "experiment_id": self.experiment_id}
        keys = [folder.name for folder in folders if folder.name in self.tracked]
        current = {key: {**place, "run_id": self.tracked[key].run_id} for key in keys}
        places = {key: {**run, "uri": public_uri(run["uri"])} for key, run in (earlier | current).items()}
        if places != earlier:
            write_json(path, places)


@contextmanager
def reported(uri: str, on_item: OnItem = ignore_item) -> Iterator[SyncReport]:
    """Turn any exception into a line of the report, since run folders are complete without MLflow."""
    report = SyncReport(on_item=on_item)
    with quiet():
        try:
            yield report
        except Exception as error:  # of any kind: it depends on the tracking server
            report.away = not isinstance(error, InputError)
            report.add("failed", f"MLflow at {public_uri(uri)}: {error_line(error, uri)}")


@contextmanager
def opened(
    uri: str, experiment: str, repo: Path, runs_root: Path, report: SyncReport, grid: str | None = None
) -> Iterator[Mirror]:
    """The mirror of an experiment. Syncs of the runs below ``runs_root`` take turns."""
    with locked(runs_root / ".mlflow"), open_experiment(uri, experiment, repo) as (client, experiment_id):
        yield Mirror(uri, client, experiment_id, grid, report)
