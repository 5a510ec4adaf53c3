"""Optuna's study of a search, kept in a file: the n-th suggestion follows from the seed, n and the samples before it.

A suggestion is made in a copy of the study and stored as a whole, so that a search killed at any moment continues with
the suggestions that it would have made.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna  # noqa: TID253
from optuna.distributions import (  # noqa: TID253
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler  # noqa: TID253
from optuna.storages.journal import JournalFileBackend, JournalStorage  # noqa: TID253
from optuna.study import StudyDirection  # noqa: TID253
from optuna.trial import FrozenTrial, TrialState, create_trial  # noqa: TID253

from blurdm.core.errors import InputError
from blurdm.core.key import key_of
from blurdm.core.seeding import derive
from blurdm.core.store import write_bytes
from experiments.search_space import Range

NAME = "search"
JOURNAL = "study.journal"
OBJECTIVES = "objectives"  # an attribute of the study: what is optimised, in words
RUN, FAILURE = "run", "failure"  # attributes of a sample: its objective's run, and why it has no value
MAXIMIZE, MINIMIZE = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
PSNR = "validation PSNR (dB)"
Curve = Sequence[tuple[int, float]]


class Study:
    """The samples of a search, asked and told. One process at a time may use it: the holder of the folder's lock.

    ``against``: name of a second objective, to be small; then suggestions aim at the Pareto front.
    """

    def __init__(self, folder: Path, sampler: str, seed: int, against: str | None, space: Mapping[str, Range]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sampler, self.seed, self.against = sampler, seed, against
        self.space = {key: _distribution(each) for key, each in sorted(space.items())}  # whatever the file's order
        self.storage = JournalStorage(JournalFileBackend(str(_mended(folder / JOURNAL))))
        self.directions = (MAXIMIZE,) if against is None else (MAXIMIZE, MINIMIZE)
        self.study = optuna.create_study(
            storage=self.storage, study_name=NAME, directions=self.directions, load_if_exists=True
        )

    def require_identity(self, base: str, folder: Path) -> None:
        """InputError if the study was begun with another space, sampler or objective, or another ``base``: the key of
        the base config's run, which depends on config, data and code.
        """
        space = {key: distribution_to_json(each) for key, each in self.space.items()}
        identity = key_of({"run": base, "space": space, "sampler": self.sampler, "against": self.against})
        if self.study.user_attrs.get("identity", identity) != identity:
            rule = "give this one another --name, or delete the folder"
            raise InputError(
                f"{folder}: is a search with other ranges, sampler, objective, config, data or code; {rule}"
            )
        self.study.set_user_attr("identity", identity)
        self.study.set_user_attr(OBJECTIVES, self.objectives)

    @property
    def objectives(self) -> list[str]:
        """What is optimised, in words."""
        return [PSNR] if self.against is None else [PSNR, self.against]

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def open(self) -> list[FrozenTrial]:
        """Samples that were asked and not told, in order."""
        return [trial for trial in self.trials if trial.state == TrialState.RUNNING]

    def suggest(self) -> dict[str, Any]:
        """Values for the next sample; nothing is stored."""
        trials = self.trials
        scratch = optuna.create_study(directions=self.directions, sampler=self._sampler(len(trials)))
        scratch.add_trials(trials)
        return scratch.ask(self.space).params

    def add(self, params: Mapping[str, Any], run: str) -> int:
        """Store a sample whose objective is that of ``run``; returns its number."""
        attributes = {RUN: run}
        self._add(TrialState.RUNNING, params, attributes)
        return len(self.trials) - 1

    def add_failed(self, params: Mapping[str, Any], reason: str) -> None:
        """Store a sample whose values do not make a config."""
        self._add(TrialState.FAIL, params, {FAILURE: reason})

    def tell(self, number: int, values: Sequence[float], curve: Curve) -> None:
        """Sample ``number`` has these objectives. ``curve``: step and validation PSNR while it was trained."""
        self._report(number, curve)
        self.study.tell(number, list(values))

    def prune(self, number: int, curve: Curve) -> None:
        """Sample ``number`` was stopped early, with this ``curve``."""
        self._report(number, curve)
        self.study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """Sample ``number`` has no objective."""
        self.storage.set_trial_user_attr(self._id(number), FAILURE, reason)
        self.study.tell(number, state=TrialState.FAIL)

    def reasons(self) -> list[str]:
        """Why samples have no value."""
        return [trial.user_attrs[FAILURE] for trial in self.trials if FAILURE in trial.user_attrs]

    def best(self, count: int, without: str) -> list[FrozenTrial]:
        """The best samples, at most ``count``, with different runs, none of them ``without``.

        With two objectives: of the Pareto front, the sample of highest PSNR first, then others evenly over the front.
        """
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        if self.against is None:
            ranked = sorted(complete, key=lambda trial: -trial.values[0])
        else:
            ranked = sorted(self.study.best_trials, key=lambda trial: -trial.values[0])
        first: dict[str, FrozenTrial] = {}
        for trial in ranked:
            first.setdefault(trial.user_attrs[RUN], trial)
        distinct = [trial for run, trial in first.items() if run != without]
        if self.against is None or len(distinct) <= count:
            return distinct[:count]
        places = [round(i * (len(distinct) - 1) / max(1, count - 1)) for i in range(count)]
        return [distinct[place] for place in places]

    def _sampler(self, number: int) -> BaseSampler:
        seed = derive(self.seed, "search", number) % 2**32
        return RandomSampler(seed) if self.sampler == "random" else TPESampler(seed=seed)

    def _add(self, state: TrialState, params: Mapping[str, Any], attributes: dict[str, Any]) -> None:
        trial = create_trial(state=state, params=dict(params), distributions=self.space, user_attrs=attributes)
        self.study.add_trial(trial)

    def _report(self, number: int, curve: Curve) -> None:
        if self.against is None:  # Optuna has no curves of several objectives
            for step, value in curve:
                self.storage.set_trial_intermediate_value(self._id(number), step, value)

    def _id(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(NAME)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)


def told(trials: Sequence[FrozenTrial]) -> int:
    """The number of samples that have ended, in whatever way."""
    return sum(trial.state.is_finished() for trial in trials)


def describe_best(trials: Sequence[FrozenTrial]) -> str:
    """Number and validation PSNR of the best sample so far; empty before one has ended."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = max(complete, key=lambda trial: trial.values[0], default=None)
    return "" if best is None else f"best: sample {best.number} with {best.values[0]:.3f} dB validation PSNR"


def load_study(folder: Path) -> optuna.Study:
    """The study of the search in ``folder``, to look at; another process may be adding to it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    return optuna.load_study(study_name=NAME, storage=storage)


def _distribution(each: Range) -> BaseDistribution:
    if each.kind == "choice":
        return CategoricalDistribution(each.labels)
    low, high = each.values
    return IntDistribution(low, high) if each.kind == "int" else FloatDistribution(low, high, log=each.kind == "log")


def _mended(journal: Path) -> Path:
    """``journal`` without the half line and the lock that a process leaves which dies while it writes."""
    journal.with_name(journal.name + ".lock").unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        content = journal.read_bytes()
        if not content.endswith(b"\n"):
            write_bytes(journal, content[: content.rfind(b"\n") + 1])
    return journal
