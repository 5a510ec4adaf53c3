"""Compares what MLflow has with what it should have, and sends the difference. Ids stay.

Each item has an identity (a run's key, a row's name) and a digest of what it was made from; both are stored as tags. An
item that is missing is created, one that has changed is brought up to date in place, and a sync that was interrupted
anywhere is completed by the next.
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
from blurdm.tracking.item import Details, Item
from blurdm.tracking.pages import runs_page
from blurdm.tracking.send import GRID_TAG, KEY_TAG, Steps, conflicts, error_line, send_details, user_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun

SENT = "mlflow.json"  # below the run folders: the MLflow run of each run, by key
CHAIN, CHAIN_TAG, PARENT_TAG = "chain", "blurdm.chain", "mlflow.parentRunId"
IDENTITY_TAG, CONTENT_TAG = "blurdm.identity", "blurdm.content"
MAX_FAILURES = 3  # so that a server that went away is not asked once per run


OnItem = Callable[[str, str], object]


def ignore_item(outcome: str, entry: str) -> None:
    """Do nothing."""


@dataclass
class SyncReport:
    """Identities of the items that were ``sent`` and that MLflow had ``already``, and one line per failure.

    ``pages``: where a server shows them. ``on_item`` gets each entry, after the name of its list. ``away``: the server
    could not be asked at all.
    """

    sent: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    on_item: OnItem = ignore_item
    away: bool = False

    def add(self, outcome: str, entry: str) -> None:
        getattr(self, outcome).append(entry)
        self.on_item(outcome, entry)


@dataclass
class TrackedRun:
    """A run that MLflow has, and the steps of its curves that are known to be there."""

    run_id: str
    content: str = ""
    status: str = "RUNNING"
    parent: str | None = None
    steps: Steps = field(default_factory=dict)


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
        """Bring MLflow to ``items``; give up after MAX_FAILURES failures.

        Then delete runs whose identities are not in ``keep`` (None: keep all). SENT beside the run ``folders`` records
        where MLflow has each of them, also when the sync fails.
        """
        if any(item.identity not in self.tracked for item in items):
            self.read_tracked()
        try:
            for item in items:
                try:
                    self._send(item)
                except Exception as error:
                    self.report.add("failed", f"{item.identity}: {error_line(error, self.uri)}")
                    if len(self.report.failed) >= MAX_FAILURES:
                        self.report.add("failed", "stopped here; sync again to send the rest")
                        return
            for identity in [] if keep is None else set(self.tracked).difference(keep):
                self.client.delete_run(self.tracked.pop(identity).run_id)
        finally:
            self._remember(folders)

    def read_tracked(self) -> None:
        """Read the runs of the experiment, and delete duplicates: the oldest is the one that users know.

        A run without the tags of a mirror, as earlier versions sent the chain, is identified by its key. Of their
        summaries, of which each new one was another run, the latest goes on.
        """
        known, self.tracked = self.tracked, {}
        token, order = None, ["attributes.start_time DESC"]
        while True:
            page = self.client.search_runs([self.experiment_id], max_results=1000, order_by=order, page_token=token)
            for run in page:
                self._take(run, known)
            token = page.token
            if not token:
                return

    def _take(self, run: "StoredRun", known: Mapping[str, TrackedRun]) -> None:
        tags = run.data.tags
        identity = CHAIN if CHAIN_TAG in tags else tags.get(IDENTITY_TAG) or tags.get(KEY_TAG)
        if identity is None or tags.get(GRID_TAG) != self.grid:
            return
        newer = self.tracked.get(identity)
        if newer and identity == CHAIN:
            return
        if newer:
            self.client.delete_run(newer.run_id)
        earlier = known.get(identity)
        steps = earlier.steps if earlier and earlier.run_id == run.info.run_id else {}
        fields = (tags.get(CONTENT_TAG, ""), run.info.status, tags.get(PARENT_TAG), steps)
        self.tracked[identity] = TrackedRun(run.info.run_id, *fields)

    def _send(self, item: Item) -> None:
        """Create the item's run, or bring it up to date. The tag of its content is written last."""
        run = self.tracked.get(item.identity)
        parent = self.tracked[item.parent].run_id if item.parent in self.tracked else None
        if run and run.content.startswith(item.content) and run.status == item.status:
            if parent and run.parent != parent:
                self.client.set_tag(run.run_id, PARENT_TAG, parent)
                run.parent = parent
            self.report.add("already", item.identity)
            return
        details, stored = item.details(), self.client.get_run(run.run_id) if run else None
        inherited, replaced = {}, None
        if stored and conflicts(stored, details):
            inherited, replaced, stored, run = user_tags(stored.data.tags), run, None, None
        tags = {IDENTITY_TAG: item.identity, GRID_TAG: self.grid or "", PARENT_TAG: parent or ""}
        if run is None:
            run = self.tracked[item.identity] = self._create(details, tags | inherited)
        send_details(self.client, run.run_id, details, tags, stored, run.steps)
        self._close(run, item, details)
        run.parent = parent or run.parent
        self.report.add("sent", item.identity)
        if replaced:
            self.client.delete_run(replaced.run_id)

    def _create(self, details: Details, tags: Mapping[str, str]) -> TrackedRun:
        tags = {name: text for name, text in tags.items() if text}
        return TrackedRun(self.client.create_run(self.experiment_id, details.begin, tags, details.name).info.run_id)

    def _close(self, run: TrackedRun, item: Item, details: Details) -> None:
        """Write the status and the content, by which the next sync sees that nothing is missing."""
        if item.status != "RUNNING":
            self.client.set_terminated(run.run_id, item.status, details.end)
        elif run.status != "RUNNING":
            self.client.update_run(run.run_id, status="RUNNING")
        self.client.set_tag(run.run_id, CONTENT_TAG, item.content)
        run.content, run.status = item.content, item.status

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
        if uri.startswith(("http://", "https://")):
            report.add("pages", runs_page(public_uri(uri), experiment_id))
        yield Mirror(uri, client, experiment_id, grid, report)
