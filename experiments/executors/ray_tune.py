"""Runs as trials of one Ray Tune experiment, on a local Ray or a cluster whose nodes share the run folders.

Tune places trials and restarts lost ones. Results and checkpoints are only in the run folders.
"""

import logging
import math
import os
import pickle
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ray import tune  # noqa: TID253
from ray.exceptions import RayActorError  # noqa: TID253
from ray.tune.schedulers import ASHAScheduler  # noqa: TID253
from ray.tune.search import Searcher  # noqa: TID253

from blurdm.core.arms import STAGES
from blurdm.core.errors import InputError, RankEnded, StopRequested
from blurdm.core.graph import Failure, Frontier, Listener, missing
from blurdm.core.runs import Resources, Run, never
from blurdm.core.store import write_bytes
from experiments.executors.heartbeats import Heartbeats
from experiments.executors.ray_cluster import connected
from experiments.executors.ray_placement import capacity, stage_requests
from experiments.executors.ray_shared import require_shared, result_appears
from experiments.executors.ray_worker import ASHA_STAGE, Placement, RunTask, train

SCHEDULERS = ("asha",)
REDUCTION = 3  # ASHA continues the best third of a rung; rungs are at the first validation, at 3 times its step, ...
STOP_SECONDS = 120.0  # for trials to save after a stop request
More = Callable[[int], list[Run]]  # further runs to compute, so that at most so many of their kind are open


@dataclass
class RayTune:
    """An executor. ``retries``: how often a run is restarted after its worker or node was lost.

    ``address``: of the cluster, None for a local Ray. ``gpus_per_rank``: 1, or a share of one, for runs on GPUs.
    ``stopped``: runs that the scheduler has stopped early, in this call or (if given) an earlier one, as {stage, key,
    by, step}. ``validations``: step and validation PSNR (dB) that runs reported to the scheduler, by key.
    """

    max_concurrent: int | None = None
    address: str | None = None
    gpus_per_rank: float = 1.0
    retries: int = 3
    scheduler: str | None = None
    stopped: list[dict[str, Any]] = field(default_factory=list)
    validations: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def execute(
        self,
        runs: Sequence[Run],
        root: Path,
        resources: Resources,
        stop: Callable[[], bool],
        listener: Listener,
        more: More | None = None,
    ) -> list[Failure]:
        """As every executor. When no run is ready, ``more`` is asked for further ones, until it has none."""
        if self.scheduler not in (None, *SCHEDULERS):
            raise InputError(f"--scheduler {self.scheduler}: unknown; known: {', '.join(SCHEDULERS)}")
        needed = missing(runs, root)
        if not needed:
            return []
        if stop():
            raise StopRequested("stopped before anything was started")
        session = root.absolute() / "sweeps" / "ray" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        resources = replace(resources, stop=never)
        placement = Placement(root.absolute(), resources, Path.cwd(), session / "stop", self.scheduler)
        progress = _TrialTracker(needed, root, stop, listener, placement.stop_file, self.stopped, more)
        progress.validations = self.validations
        session.mkdir(parents=True)
        try:
            with connected(self.address):
                self._tune(needed, placement, progress, session)
        finally:
            shutil.rmtree(session, ignore_errors=True)
        if not progress.frontier.over:
            raise StopRequested("stopped; what was computed is saved, start again to continue")
        return progress.failures

    def _tune(self, needed: list[Run], placement: Placement, progress: "_TrialTracker", session: Path) -> None:
        stages = STAGES if progress.more else {run.stage for run in needed}
        requests = stage_requests(stages, placement.resources, self.gpus_per_rank)
        room = [capacity(request) for request in requests.values()]
        progress.room = self.max_concurrent or min(room)
        if self.address:
            require_shared(placement.root, session)
        trainable = tune.with_resources(
            tune.with_parameters(train, placement=placement), lambda config: requests[config["stage"]].placement()
        )
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=_Search(progress),
                scheduler=_asha(needed) if self.scheduler else None,
                num_samples=-1,  # as many as the search gives
                max_concurrent_trials=self.max_concurrent or max(room),
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(session),
                failure_config=tune.FailureConfig(max_failures=self.retries),
                callbacks=[_TrialCallback(progress)],
                stop=_Stop(progress),
                verbose=0,
            ),
        ).fit()


def _asha(needed: list[Run]) -> ASHAScheduler | None:
    """A scheduler that stops a run whose validation PSNR is not among the best third at its step so far."""
    sections = [run.sections[ASHA_STAGE] for run in needed if run.stage == ASHA_STAGE]
    if not sections:
        return None
    longest = max(sum(steps for steps, _ in section.phases) for section in sections)
    first = min(longest, *(section.validate_every for section in sections))
    return ASHAScheduler(
        time_attr="step", metric="val_psnr", mode="max", grace_period=first, max_t=longest, reduction_factor=REDUCTION
    )


class _TrialTracker:
    """The state of one call of ``execute``, in the driver; Tune's hooks update it.

    It pickles to nothing, since a sweep continues from the run folders and not from what Tune stores.
    """

    def __init__(
        self,
        needed: list[Run],
        root: Path,
        stop: Callable[[], bool],
        listener: Listener,
        stop_file: Path,
        stopped: list[dict[str, Any]],
        more: More | None,
    ) -> None:
        self.root, self.more, self.room = root, more, 1
        self.validations: dict[str, list[tuple[int, float]]] = {}
        self.frontier, self.failures, self.stopped = Frontier(needed), list[Failure](), stopped
        self.stop, self.stop_file, self.stop_time = stop, stop_file, math.inf
        self.listener, self.heartbeats = listener, Heartbeats(root, listener)
        self.trials: dict[str, Run] = {}
        self.working: dict[str, Run] = {}
        self.started: set[str] = set()

    def __deepcopy__(self, memo: object) -> "_TrialTracker":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return str, ()

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested; the first time, the workers are notified."""
        if self.stop_time == math.inf and self.stop():
            self.stop_time = time.monotonic()
            write_bytes(self.stop_file, b"")
        return self.stop_time < math.inf

    def next(self, trial: str) -> Run | None:
        """The run for ``trial``; None if none is ready. Runs that were stopped early before fail at once."""
        stopped = {entry["key"]: entry for entry in self.stopped}
        while (run := self._take()) and run.key in stopped:
            self.fail(_stopped_early(run, stopped[run.key]))
        if run is not None:
            self.trials[trial] = run
        return run

    def _take(self) -> Run | None:
        if not self.frontier.ready and self.more is not None:
            self.frontier.add(missing(self.more(self.room), self.root))
        return self.frontier.take()

    def start(self, trial: str) -> None:
        run = self.working[trial] = self.trials[trial]
        if trial not in self.started:
            self.started.add(trial)
            self.listener.started(run)

    def end(self, trial: str, result: Mapping[str, Any]) -> None:
        """``trial`` has returned the ``result`` of ``train``, or the scheduler ended it after a report."""
        self.working.pop(trial, None)
        run, outcome = self.trials[trial], result.get("outcome")
        if outcome == "finished" and not result_appears(run.folder(self.root)):
            place = run.folder(self.root) / "result.json"
            line = f"{place}: not there, although the run has finished on node {result['node']}; {self.root} should be"
            self.fail(Failure(run, f"{line} on a file system that all nodes share with this machine", True))
        elif outcome == "finished":
            self.frontier.done(run)
            self.listener.ended(run, None)
        elif outcome == "failed":
            self.fail(Failure(run, result["message"], True))
        elif outcome is None:
            entry = {"stage": run.stage, "key": run.key, "by": "asha", "step": result["step"]}
            self.stopped.append(entry)
            self.fail(_stopped_early(run, entry))

    def fail(self, failure: Failure) -> None:
        for caused in (failure, *self.frontier.failed(failure)):
            self.failures.append(caused)
            self.listener.ended(caused.run, caused)


def _stopped_early(run: Run, entry: Mapping[str, Any]) -> Failure:
    return Failure(run, f"stopped early by {entry['by']} at step {entry['step']}", True)


class _Search(Searcher):
    """Gives Tune runs as they become ready.

    Ray's own ``OptunaSearch`` has a trial compute a whole sample, so that samples could not share stages, and it
    forgets after a kill which samples it had begun. Here a trial is a run, and ``more`` asks Optuna's study.
    """

    def __init__(self, tracker: _TrialTracker) -> None:
        super().__init__()
        self.tracker = tracker

    def suggest(self, trial_id: str) -> Any:
        if self.tracker.stopping:
            return Searcher.FINISHED
        run = self.tracker.next(trial_id)
        if run is None:
            return Searcher.FINISHED if self.tracker.frontier.over else None
        return {"task": RunTask(run), "stage": run.stage}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Does nothing: the callback gets the trial, with the reason of an error."""

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: see ``_TrialTracker``."""


class _TrialCallback(tune.Callback):
    """Passes events of trials on to the tracker."""

    def __init__(self, tracker: _TrialTracker) -> None:
        self.tracker = tracker

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.tracker.heartbeats.poll(list(self.tracker.working.values()))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.tracker.start(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "val_psnr" in result:
            reported = self.tracker.validations.setdefault(self.tracker.trials[trial.trial_id].key, [])
            reported.append((result["step"], result["val_psnr"]))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.tracker.working.pop(trial.trial_id, None)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.tracker.end(trial.trial_id, trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.tracker.working.pop(trial.trial_id, None)
        run = self.tracker.trials[trial.trial_id]
        with open(trial.pickled_error_file, "rb") as file:  # on the driver's machine, where Tune put it
            error = pickle.load(file)
        if isinstance(error, RayActorError):
            reason = str(error).partition("\n")[0]
            self.tracker.fail(Failure(run, f"its worker was lost {trial.num_failures} times ({reason})", True))
        elif isinstance(cause := getattr(error, "cause", error), RankEnded):
            self.tracker.fail(Failure(run, f"{cause} (ended {trial.num_failures} times)", True))
        else:
            self.tracker.fail(Failure(run, str(error), False))


class _Stop(tune.Stopper):
    """Ends the experiment after a stop request, once all running trials have saved or STOP_SECONDS have passed."""

    def __init__(self, tracker: _TrialTracker) -> None:
        self.tracker = tracker

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        waited = time.monotonic() - self.tracker.stop_time
        return self.tracker.stopping and (not self.tracker.working or waited > STOP_SECONDS)
