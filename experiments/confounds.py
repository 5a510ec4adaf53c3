"""What a row of a grid changes besides what it names: terminal noise, gain, parameters, compute or labels.

Such a change has its own effect on the result. A grid holds it fixed, or says so under ``besides``; ``sweep.py plan``
warns of the others. Everything here follows from the configs; no network is built.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from blurdm.core.arms import ARMS
from blurdm.core.config import Config, Diffusion
from blurdm.core.registry import require
from blurdm.diffusion.schedules import TYPES, make_schedule
from blurdm.stages.plan import stages_of
from experiments.grid_file import GridFile

if TYPE_CHECKING:
    from experiments.grid import Grid, GridRow

NOISE, GAIN, PARAMETERS, COMPUTE, LABELS = KINDS = ("terminal noise", "gain", "parameters", "compute", "labels")
PRIOR_ARM = "joint"  # the stage whose arms restore through the diffusion
ON_IMAGES = ("baseline", "direct", "pretrain", "joint")
WITH_ENCODER = ("direct", "pretrain", "diffusion", "joint")
DIGITS = 4  # of noise and gain
# A row that sets one of these names the change itself; a trailing dot stands for all keys of a section.
NAMED_BY: Mapping[str, tuple[str, ...]] = {
    NOISE: ("diffusion.beta_start", "diffusion.beta_end", "diffusion.fixed_terminal_noise"),
    GAIN: ("diffusion.alpha_start", "diffusion.alpha_end"),
    PARAMETERS: ("backbone.", "latent.", "diffusion.estimator_layers"),
    COMPUTE: ("data.crop", "data.batch_size", "backbone.", "latent.", "compute."),
    LABELS: (),
}
COUNTS = ("iterations", "warmup_iterations")  # of a stage: they name the compute, and the latter the labels


def check_besides(file: GridFile, rows: Iterable["GridRow"]) -> None:
    """Raise InputError if ``besides`` names what no row or part of one is called, or what cannot change besides."""
    names = {name for row in rows for name in (row.name, *row.levels.values())}
    for name, kinds in file.besides.items():
        require("besides:", name, names)
        for kind in kinds:
            require(f"besides: {name}:", kind, KINDS)


def confounds(grid: "Grid") -> dict[str, list[str]]:
    """By row, what it changes against its reference besides what it names, and does not say."""
    rows = {row.name: row for row in grid.rows}
    found = {}
    for row in grid.rows:
        kinds = [kind for kind in changed(row, rows[row.reference]) if kind not in row.besides]
        if kinds:
            found[row.name] = kinds
    return found


def changed(row: "GridRow", reference: "GridRow") -> Iterator[str]:
    """The KINDS in which two trained rows differ although neither names it."""
    own, other = facts(row), facts(reference)
    keys = [key for key in {**row.values, **reference.values} if _value(row, key) != _value(reference, key)]
    for kind in own.keys() & other.keys() if own and other else ():
        if own[kind] != other[kind] and not any(_names(key, kind) for key in keys):
            yield kind


def facts(row: "GridRow") -> dict[str, Any]:
    """The value of each of KINDS that the row has; none for what is not trained."""
    stage = ARMS[row.arm].stage
    if stage is None:
        return {}
    config, chain = row.config, stages_of(row.config, "measure", stage)
    encoder_steps = sum(_steps(config, name) for name in WITH_ENCODER if name in chain)
    image_steps = sum(_steps(config, name, warmup=False) for name in ON_IMAGES if name in chain)
    labelled = [name for name in chain if getattr(getattr(config, name, None), "warmup_iterations", 0)]
    about: dict[str, Any] = {
        PARAMETERS: (stage != "baseline", _estimator_weights(config) if stage == PRIOR_ARM else 0),
        COMPUTE: (image_steps, encoder_steps),
        LABELS: bool(labelled),
    }
    if stage == PRIOR_ARM:
        schedule = make_schedule(config.diffusion)
        about[GAIN] = round(schedule.alpha[-1] / schedule.alpha[0], DIGITS)
        if TYPES[config.diffusion.type].noise:
            about[NOISE] = round(schedule.beta_bar[-1], DIGITS)
    return about


def _steps(config: Config, stage: str, warmup: bool = True) -> int:
    """Optimisation steps of a stage, with those of its warm-up."""
    section = getattr(config, stage)
    steps = sum(iterations for iterations, _ in section.phases)
    return int(steps + (getattr(section, "warmup_iterations", 0) if warmup else 0))


def _estimator_weights(config: Config) -> int:
    """Weights and biases of all estimators (diffusion/estimators.py), and of what makes a condition of their own."""
    diffusion: Diffusion = config.diffusion
    size, kind = config.latent.size, TYPES[diffusion.type]
    layer = size * size + size
    one = (2 * size + 1) * size + size + (diffusion.estimator_layers - 1) * layer
    number = kind.residual + kind.noise
    return one * (min(number, 1) if diffusion.predicts == "clean" else number) + 2 * layer * (
        diffusion.condition == "features"
    )


def _value(row: "GridRow", key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(row.config, section, None), name, None)


def _names(key: str, kind: str) -> bool:
    """Whether a change of ``key`` names a change of ``kind``."""
    section, _, name = key.partition(".")
    if name in COUNTS:
        return kind == COMPUTE or (kind == LABELS and name == "warmup_iterations")
    return any(key == named or (named.endswith(".") and f"{section}." == named) for named in NAMED_BY[kind])
