"""What stages there are, what each reads and needs, and hence the graph of runs of a config. No torch here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

from blurdm.core.config import Config, Data, Diffusion, Elsewhere, Part
from blurdm.core.errors import InputError
from blurdm.core.registry import lookup, module_names, require
from blurdm.core.runs import Run, section_text
from blurdm.data.layouts import LAYOUTS
from blurdm.data.splits import folder_digest
from blurdm.diffusion.schedules import ALPHA, BETA, TYPES
from blurdm.metrics.protocols import METRICS, PROTOCOLS, available, missing

MODELS = ("baseline", "direct", "pretrain", "joint")


@dataclass(frozen=True)
class Stage:
    """``reads``: config sections; ``needs``: earlier stages. A changed ``version`` makes every key of the stage new."""

    reads: tuple[str, ...]
    needs: tuple[str, ...]
    version: int = 1


STAGES = {
    "prepare": Stage(("data",), ()),
    "baseline": Stage(("data", "backbone", "loss", "baseline", "compute", "seed"), ("prepare",), version=2),
    "direct": Stage(("data", "backbone", "latent", "loss", "direct", "compute", "seed"), ("prepare",), version=3),
    "pretrain": Stage(("data", "backbone", "latent", "loss", "pretrain", "compute", "seed"), ("prepare",), version=2),
    "diffusion": Stage(("data", "latent", "diffusion", "compute", "seed"), ("prepare", "pretrain"), version=2),
    "joint": Stage(
        ("data", "backbone", "latent", "loss", "diffusion", "joint", "compute", "seed"),
        ("prepare", "pretrain", "diffusion"),
        version=3,
    ),
    "evaluate": Stage(("data", "evaluate"), ("prepare",), version=3),
}


# What stage 3 needs besides the data, by joint.start.
JOINT_NEEDS = {
    "stages": ("prepare", "pretrain", "diffusion"),
    "pretrain": ("prepare", "pretrain"),
    "scratch": ("prepare",),
}


def needs(stage: str, joint_start: str) -> tuple[str, ...]:
    """The earlier stages that ``stage`` needs, under the config's joint.start."""
    return JOINT_NEEDS[joint_start] if stage == "joint" else STAGES[stage].needs


def check(config: Config, source: str) -> None:
    """InputError for what the registries know: an unknown backbone, schedule, layout or metric, a clash of options."""
    try:
        require("backbone.name:", config.backbone.name, module_names("blurdm.models.backbones"))
        require("data.layout:", config.data.layout, LAYOUTS)
        if config.test is not None:
            require("test.layout:", config.test.layout, LAYOUTS)
        require("diffusion.alpha_schedule:", config.diffusion.alpha_schedule, ALPHA)
        require("diffusion.beta_schedule:", config.diffusion.beta_schedule, BETA)
        for metric in config.evaluate.metrics:
            require("evaluate.metrics:", metric, METRICS)
        require("evaluate.protocol:", config.evaluate.protocol, PROTOCOLS)
        if config.diffusion.condition_init == "sharp" and config.latent.sharp_batch_norm:
            raise InputError(
                "diffusion.condition_init: 'sharp' needs latent.sharp_batch_norm: false (a blur encoder has none)"
            )
        _check_diffusion(config.diffusion)
        _check_freeze(config)
        _check_micro_batches(config)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _check_diffusion(diffusion: Diffusion) -> None:
    if diffusion.start == "gaussian" and not TYPES[diffusion.type].noise:
        noisy = ", ".join(name for name, made_of in TYPES.items() if made_of.noise)
        raise InputError(f"diffusion.start: 'gaussian' needs a type with noise ({noisy}), not '{diffusion.type}'")
    if diffusion.supervision == "residual_sum" and not TYPES[diffusion.type].residual:
        estimating = ", ".join(name for name, made_of in TYPES.items() if made_of.residual)
        raise InputError(
            f"diffusion.supervision: 'residual_sum' needs a type with a residual estimator ({estimating}),"
            f" not '{diffusion.type}'"
        )


def _check_micro_batches(config: Config) -> None:
    count = config.compute.micro_batches
    sizes = {"data.batch_size": config.data.batch_size}
    for name in ("direct", "pretrain"):
        section = getattr(config, name)
        sizes |= {f"{name}.warmup_batch_size": section.warmup_batch_size} if section.warmup_iterations else {}
    for name, size in sizes.items():
        if size % count:
            raise InputError(f"compute.micro_batches: {count}: {name} {size} should be a multiple of it")


def _check_freeze(config: Config) -> None:
    made_of = TYPES[config.diffusion.type]
    exists = {part for part in get_args(Part) if part != "estimators" or made_of.residual or made_of.noise}
    if exists <= set(config.joint.freeze):
        raise InputError(f"joint.freeze: nothing is left to train; leave out one of {', '.join(sorted(exists))}")


def stages_of(config: Config, stage: str, model: str | None = None) -> frozenset[str]:
    """``stage``, the ``model`` it measures and all stages that they need; a chain has one run of each."""
    return _stages_of(stage, model, config.joint.start)


def sections_read(config: Config, stage: str, model: str | None = None) -> frozenset[str]:
    """The config sections that ``stages_of`` the same arguments read, or that say what they are run on."""
    return _sections_read(stage, model, config.joint.start)


@cache
def _stages_of(stage: str, model: str | None, joint_start: str) -> frozenset[str]:
    before = needs(stage, joint_start) if model is None else (*needs(stage, joint_start), model)
    return frozenset((stage,)).union(*(_stages_of(earlier, None, joint_start) for earlier in before))


@cache
def _sections_read(stage: str, model: str | None, joint_start: str) -> frozenset[str]:
    reads = (STAGES[name].reads for name in _stages_of(stage, model, joint_start))
    measured_on = {"test"} if stage == "evaluate" else set[str]()
    return frozenset[str]().union(*reads, measured_on) - {"seed"}


class Planner:
    """Plans runs of many configs: what two of them share is one Run, hashed once; the data is looked at once.

    The file ``digests`` remembers those of data files that did not change. With ``provisional``, data folders that do
    not exist are no error: ``missing`` names them, and the keys of runs on them are not those that they will have.
    """

    def __init__(self, digests: Path | None = None, provisional: bool = False) -> None:
        self._remembered = digests
        self._provisional = provisional
        self.missing: dict[str, None] = {}  # in the order of finding them
        self._digests: dict[str, str] = {}
        self._available: dict[tuple[str, ...], str] = {}
        self._texts: dict[int, tuple[Any, str]] = {}  # by id; the section beside its text keeps the id its own
        self._planned: dict[tuple[Any, ...], Run] = {}
        self._moved: dict[tuple[Data, Elsewhere], Data] = {}
        self._runs: dict[str, Run] = {}

    def plan(self, config: Config, stage: str, seed: int | None = None, model: str | None = None) -> Run:
        """The run of ``stage`` and, through its inputs, all that it needs. ``evaluate`` takes the ``model`` stage to
        measure, or None for the blurred input itself. InputError for an unknown stage or a missing seed.
        """
        known: dict[str, Run] = {}
        elsewhere = self._elsewhere(config)

        def build(name: str) -> Run:
            if name not in known:
                inputs: dict[str, Run | str] = {need: build(need) for need in needs(name, config.joint.start)}
                if name == "prepare":
                    inputs["raw"] = self._digest(config.data.root)
                if name == "evaluate":
                    if elsewhere is not config:
                        # the test pairs alone are those of another data set; the model keeps its own data
                        inputs["prepare"] = self.plan(elsewhere, "prepare")
                    # Weights of a metric that arrive later make a new run; otherwise it would stay "not available".
                    inputs["metrics"] = self._measurable(config.evaluate.metrics)
                    if model is not None:
                        inputs["model"] = build(model)
                known[name] = self._run(elsewhere if name == "evaluate" else config, name, seed, inputs)
            return known[name]

        lookup("stage", stage, STAGES)
        return build(stage)

    def _elsewhere(self, config: Config) -> Config:
        """``config`` with the data set whose test pairs are measured: its own, or that of its section ``test``."""
        if config.test is None:
            return config
        request = config.data, config.test
        if request not in self._moved:
            place = {"root": config.test.root, "layout": config.test.layout}
            self._moved[request] = config.data.model_copy(update=place)
        return config.model_copy(update={"data": self._moved[request], "test": None})

    def _run(self, config: Config, name: str, seed: int | None, inputs: Mapping[str, Run | str]) -> Run:
        stage = STAGES[name]
        needs_seed = "seed" in stage.reads
        if needs_seed and seed is None:
            raise InputError(f"stage '{name}' needs a seed")
        own_seed = seed if needs_seed else None
        values = vars(config)
        read = tuple([id(values[section]) for section in stage.reads if section != "seed"])
        needed = tuple([i.key if isinstance(i, Run) else i for i in inputs.values()])
        request = (name, own_seed, read, needed)
        if request not in self._planned:
            run = Run(name, stage.version, config, own_seed, stage.reads, inputs)
            vars(run)["key"] = run.hashed(self._text)  # where the cached property keeps it
            self._planned[request] = self._runs.setdefault(run.key, run)
        return self._planned[request]

    def _text(self, section: Any) -> str:
        if id(section) not in self._texts:
            self._texts[id(section)] = section, section_text(section)
        return self._texts[id(section)][1]

    def _digest(self, root: str) -> str:
        if root not in self._digests:
            if self._provisional and not Path(root).exists():
                self.missing[root] = None
                return f"missing {root}"
            self._digests[root] = folder_digest(Path(root), self._remembered)
        return self._digests[root]

    def _measurable(self, metrics: tuple[str, ...]) -> str:
        if metrics not in self._available:
            self._available[metrics] = ",".join(filter(available, metrics))
        return self._available[metrics]


def unmeasurable(runs: Iterable[Run]) -> list[str]:
    """A line per metric that one of ``runs`` should measure and that this machine has no weights for."""
    asked = {name: None for run in runs if run.stage == "evaluate" for name in run.sections.evaluate.metrics}
    return [missing(name) for name in asked if not available(name)]


def plan(
    config: Config, stage: str, seed: int | None = None, model: str | None = None, cache: Path | None = None
) -> Run:
    """One run and all that it needs, as ``Planner.plan`` plans it."""
    return Planner(cache).plan(config, stage, seed, model)


def plan_all(config: Config, stage: str, seeds: Iterable[int], cache: Path | None = None) -> list[Run]:
    """Every run of ``stage`` in the canonical chain: one per seed; ``evaluate``: per model and seed, and the input."""
    planner = Planner(cache)
    if stage == "prepare":
        return [planner.plan(config, stage)]
    if stage == "evaluate":
        models = [planner.plan(config, stage, seed, model) for model in MODELS for seed in seeds]
        return [planner.plan(config, stage), *models]
    return [planner.plan(config, stage, seed) for seed in seeds]
