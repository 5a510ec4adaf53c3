"""The graph of runs of a config, from the table of stages (core/arms.py). No torch here."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

from blurdm.core.arms import MODELS, STAGES, TRAINED
from blurdm.core.code import code_digest
from blurdm.core.config import Config, Data, Diffusion, Part
from blurdm.core.errors import InputError
from blurdm.core.registry import lookup, module_names, require
from blurdm.core.runs import Run, backbone_of, init_file
from blurdm.core.store import file_digest
from blurdm.data.blur.camera_path import margin_of
from blurdm.data.layouts import LAYOUTS
from blurdm.data.pairs import check_crop
from blurdm.data.splits import folder_digest
from blurdm.diffusion.schedules import ALPHA, BETA, TYPES
from blurdm.metrics.protocols import METRICS, PROTOCOLS, available, missing

ON_TEST_PAIRS = ("restore", "measure")  # the only stages that open test images
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
        for metric in config.measure.metrics:
            lookup("measure.metrics:", metric, METRICS)
        require("measure.protocol:", config.measure.protocol, PROTOCOLS)
        if config.diffusion.condition_init == "sharp" and config.latent.sharp_batch_norm:
            raise InputError(
                "diffusion.condition_init: 'sharp' needs latent.sharp_batch_norm: false (a blur encoder has none)"
            )
        _check_diffusion(config.diffusion, config.data)
        _check_freeze(config)
        _check_micro_batches(config)
        for key, name in [("content", config.loss.content), *(("terms", term.name) for term in config.loss.terms)]:
            require(f"loss.{key}:", name, module_names("blurdm.training.losses"))
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def check_index(index: Mapping[str, Any], data: Data, crops: Mapping[str, int]) -> None:
    """InputError for prepared pairs that no network could be trained on; test pairs alone are there to be measured.

    ``crops``: sides by the keys that state them.
    """
    splits = Counter(pair["split"] for pair in index["pairs"])
    if splits["train"] and not splits["val"]:
        raise InputError("data.val_scenes: [] leaves no images to validate on; should name scenes, or be a number")
    margin = margin_of(data.fresh_blur.length[1]) if data.fresh_blur else 0
    for pair in index["pairs"]:
        if pair["split"] == "train":
            for key, side in crops.items():
                check_crop(pair, side, margin, key)


def trained_sections(config: Config) -> dict[str, Any]:
    """Those of the data and of the training stages."""
    return {name: getattr(config, name) for name in ("data", *TRAINED)}


def largest_crops(sections: Mapping[str, Any]) -> dict[str, int]:
    """The largest crop of each stage among ``sections``, by the key that states it."""
    crops = {"data.crop": sections["data"].crop}
    for stage in trained_in(sections):
        if sides := sections[stage].shape.crops:
            crops[f"{stage}.course.crops"] = max(sides)
    return crops


def batch_sizes(sections: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The sizes of the batches of each stage among ``sections``, beside the keys that state them."""
    sizes = [("data.batch_size", sections["data"].batch_size)]
    for stage in trained_in(sections):
        section = sections[stage]
        sizes += [(f"{stage}.course.batch_sizes", size) for size in section.shape.batch_sizes or ()]
        if getattr(section, "warmup_iterations", 0):
            sizes.append((f"{stage}.warmup_batch_size", section.warmup_batch_size))
    return sizes


def trained_in(sections: Mapping[str, Any]) -> list[str]:
    """The training stages whose own section is among ``sections``."""
    return [stage for stage in TRAINED if sections.get(stage) is not None]


def _check_diffusion(diffusion: Diffusion, data: Data) -> None:
    made_of = TYPES[diffusion.type]
    for key, legacy in (("predicts", "noise"), ("condition", "latent")):
        value = getattr(diffusion, key)
        if value != legacy and not (made_of.residual or made_of.noise):
            raise InputError(f"diffusion.{key}: '{value}' needs a type with estimators, not '{diffusion.type}'")
    if diffusion.supervision == "residual_sum" and diffusion.predicts == "clean":
        # its total holds z^B itself, so that the blur encoder would run after its own target
        raise InputError(
            "diffusion.supervision: 'residual_sum' needs predicts: noise; of a clean latent, the total follows"
        )
    if diffusion.supervision == "exposures" and data.fresh_blur is None:
        raise InputError(
            "diffusion.supervision: 'exposures' needs data.fresh_blur, which knows the partial exposures of its blur;"
            " null leaves out how the blur of the data set came about"
        )
    if diffusion.start == "gaussian" and not made_of.noise:
        noisy = ", ".join(name for name, other in TYPES.items() if other.noise)
        raise InputError(f"diffusion.start: 'gaussian' needs a type with noise ({noisy}), not '{diffusion.type}'")
    if diffusion.supervision in ("residual_sum", "exposures") and not made_of.residual:
        estimating = ", ".join(name for name, other in TYPES.items() if other.residual)
        raise InputError(
            f"diffusion.supervision: '{diffusion.supervision}' needs a type with a residual estimator ({estimating}),"
            f" not '{diffusion.type}'"
        )


def _check_micro_batches(config: Config) -> None:
    count = config.compute.micro_batches
    for name, size in batch_sizes(trained_sections(config)):
        if size % count:
            raise InputError(f"compute.micro_batches: {count}: {name} {size} should be a multiple of it")


def _check_freeze(config: Config) -> None:
    made_of = TYPES[config.diffusion.type]
    exists = {part for part in get_args(Part) if part != "estimators" or made_of.residual or made_of.noise}
    if exists <= set(config.joint.freeze):
        raise InputError(f"joint.freeze: nothing is left to train; leave out one of {', '.join(sorted(exists))}")


def stages_with_section(config: Config, stages: Iterable[str]) -> list[str]:
    """Those of ``stages`` that the config has: their own section is not null."""
    return [stage for stage in stages if getattr(config, stage) is not None]


def stages_of(config: Config, stage: str, model: str | None = None) -> frozenset[str]:
    """``stage``, the ``model`` it restores with or measures, and all stages that they need."""
    return _stages_of(stage, model, config.joint.start)


def sections_read(config: Config, stage: str, model: str | None = None) -> frozenset[str]:
    """The config sections that ``stages_of`` the same arguments read, or that say what they are run on."""
    reads = (STAGES[name].reads for name in stages_of(config, stage, model))
    other_data = {"test"} if stage in ON_TEST_PAIRS else set[str]()
    return frozenset[str]().union(*reads, other_data) - {"seed"}


@cache
def _stages_of(stage: str, model: str | None, joint_start: str) -> frozenset[str]:
    before = needs(stage, joint_start) if model is None else (*needs(stage, joint_start), model)
    return frozenset((stage,)).union(*(_stages_of(earlier, None, joint_start) for earlier in before))


class Planner:
    """Plans runs of many configs: what two of them share is one Run, and the data is looked at once.

    The file ``digests`` remembers those of data files that did not change. With ``provisional``, data folders that do
    not exist are no error: ``missing`` names them, and the keys of runs on them are not those that they will have.
    """

    def __init__(self, digests: Path | None = None, provisional: bool = False) -> None:
        self._digest_file = digests
        self._provisional = provisional
        self.missing: dict[str, None] = {}  # in the order of finding them
        self._digests: dict[str, str] = {}
        self._runs: dict[str, Run] = {}

    def plan(self, config: Config, stage: str, seed: int | None = None, model: str | None = None) -> Run:
        """The run of ``stage`` and, through its inputs, all that it needs. ``restore`` and ``measure`` take the
        ``model`` stage, or None for the blurred input itself. InputError for an unknown stage or a missing seed.
        """
        lookup("stage", stage, STAGES)
        return self._build(config, stage, seed, model, {})

    def measure(self, config: Config, model: Run) -> Run:
        """The run that measures the restorations by a finished ``model`` on the config's test pairs."""
        return self._build(config, "measure", None, model.stage, {model.stage: model})

    def prepare_tests(self, config: Config) -> Run:
        """The run that prepares the config's test pairs."""
        prepared = self._build(config, "restore", None, None, {}).inputs["prepare"]
        assert isinstance(prepared, Run)
        return prepared

    def measure_restored(self, config: Config, restored: Run) -> Run:
        """The run that measures ``restored``, a run of the stage restore, on the config's test pairs."""
        return self._build(config, "measure", None, None, {"restore": restored})

    def _build(self, config: Config, stage: str, seed: int | None, model: str | None, built: dict[str, Run]) -> Run:
        """``built`` holds the runs of this chain so far, by stage."""
        if stage in built:
            return built[stage]
        own = config
        if stage in ON_TEST_PAIRS and config.test is not None:  # the test pairs alone are those of another data set
            data = config.data.model_copy(update={"root": config.test.root, "layout": config.test.layout})
            own = config.model_copy(update={"data": data, "test": None})
        inputs: dict[str, Run | str] = {}
        for need in needs(stage, config.joint.start):
            if need == "prepare" and own is not config:
                inputs[need] = self._build(own, need, None, None, {})
            else:
                inputs[need] = self._build(config, need, seed, model, built)
        if place := getattr(getattr(config, stage, None), "init", ""):
            inputs["init"] = self._weights(place)
        if stage == "prepare":
            inputs["raw"] = self._digest(own.data.root)
        if stage == "restore" and model is not None:
            inputs["model"] = self._build(config, model, seed, None, built)
        if stage == "measure":
            # Weights of a metric that arrive later make a new run; otherwise it would stay "not available".
            inputs["metrics"] = ",".join(name for name in config.measure.metrics if available(name))
        built[stage] = self._run(own, stage, seed, inputs)
        return built[stage]

    def _run(self, config: Config, name: str, seed: int | None, inputs: Mapping[str, Run | str]) -> Run:
        stage = STAGES[name]
        if "seed" in stage.reads and seed is None:
            raise InputError(f"stage '{name}' needs a seed")
        if getattr(config, name, stage) is None:
            raise InputError(f"{name}: null, so this config has no such stage; should be a section")
        sections = {section: seed if section == "seed" else getattr(config, section) for section in stage.reads}
        run = Run(name, sections, inputs, code_digest(stage.code, backbone_of(sections, inputs)))
        return self._runs.setdefault(run.key, run)

    def _weights(self, place: str) -> str:
        if self._provisional and not Path(place).exists():
            self.missing[place] = None
            return f"missing {place}"
        if place not in self._digests:
            self._digests[place] = file_digest(init_file(place))
        return self._digests[place]

    def _digest(self, root: str) -> str:
        if root not in self._digests:
            if self._provisional and not Path(root).exists():
                self.missing[root] = None
                return f"missing {root}"
            self._digests[root] = folder_digest(Path(root), self._digest_file)
        return self._digests[root]


def unmeasurable(runs: Iterable[Run]) -> list[str]:
    """A line per metric that one of ``runs`` should measure and that this machine has no weights for."""
    asked = {name: None for run in runs if run.stage == "measure" for name in run.sections["measure"].metrics}
    return [missing(name) for name in asked if not available(name)]


def plan(
    config: Config, stage: str, seed: int | None = None, model: str | None = None, cache: Path | None = None
) -> Run:
    """One run and all that it needs, as ``Planner.plan`` plans it."""
    return Planner(cache).plan(config, stage, seed, model)


def plan_all(config: Config, stage: str, seeds: Iterable[int], cache: Path | None = None) -> list[Run]:
    """Every run of ``stage`` in the chain: one per seed; restore and measure: per model and seed, and the input."""
    planner = Planner(cache)
    if stage == "prepare":
        return [planner.plan(config, stage)]
    if stage in ON_TEST_PAIRS:
        models = [planner.plan(config, stage, seed, m) for m in stages_with_section(config, MODELS) for seed in seeds]
        return [planner.plan(config, stage), *models]
    return [planner.plan(config, stage, seed) for seed in seeds]
