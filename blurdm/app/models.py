"""The models on the page, each checked before it is offered."""

from dataclasses import dataclass
from pathlib import Path

from blurdm.core.arms import MODELS, STAGES
from blurdm.core.errors import InputError
from blurdm.core.store import read_json
from blurdm.restore.files import shown
from blurdm.restore.models import find_model, installed

LONGEST_PROBLEM = 300


@dataclass(frozen=True)
class OfferedModel:
    """An argument of ``blurdm.load``, what that model was trained on, and why it cannot be used (empty: it can)."""

    model: str
    trained_on: str = ""
    problem: str = ""


def find_models(folder: Path, given: list[str]) -> dict[str, OfferedModel]:
    """By name: installed models, runs below ``folder``, and ``given`` ones. InputError if no model can be used.

    Runs are finished ones that restore photos, two folders below ``folder``, as ``blurdm run --export`` makes them. A
    broken one has a ``problem``; of ``given``, it is an InputError.
    """
    runs = [result.parent for result in sorted(folder.glob("*/*/result.json")) if _may_restore(result.parent)]
    choices = {name: _check(name) for name in installed()}
    choices |= {shown(run.relative_to(folder)): _check(str(run)) for run in runs}
    for name in given:
        choices[shown(name)] = choice = _check(name)
        if choice.problem:
            raise InputError(choice.problem)
    if all(choice.problem for choice in choices.values()):
        problems = "".join(f"; {name}: {choice.problem}" for name, choice in choices.items())
        raise InputError(f"no model: none is installed, and none in {folder}{problems}; give one with --model")
    return choices


def _may_restore(folder: Path) -> bool:
    """True for a run that restores photos, and for a broken one."""
    try:
        stage = read_json(folder / "config.json")["stage"]
    except Exception:
        return True
    return not isinstance(stage, str) or stage not in STAGES or (stage in MODELS and STAGES[stage].trains != "pretrain")


def _check(model: str) -> OfferedModel:
    try:
        return OfferedModel(model, find_model(model).trained_on)
    except Exception as error:  # whatever is in that folder, the other models are offered
        reason = str(error) if isinstance(error, InputError) else f"{model}: damaged ({type(error).__name__}: {error})"
        return OfferedModel(model, problem=shown(reason)[:LONGEST_PROBLEM])
