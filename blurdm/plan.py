"""What stages there are, what each reads and needs, and hence the graph of runs of a config. No torch here."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from blurdm.config import Config
from blurdm.data.layouts import LAYOUTS
from blurdm.data.splits import folder_digest
from blurdm.diffusion.schedules import ALPHA, BETA
from blurdm.errors import InputError
from blurdm.metrics.full_reference import METRICS, available
from blurdm.registry import lookup, module_names, require
from blurdm.runs import Run

MODELS = ("baseline", "direct", "pretrain", "joint")


@dataclass(frozen=True)
class Stage:
    """``reads``: config sections; ``needs``: earlier stages. A changed ``version`` makes every key of the stage new."""

    reads: tuple[str, ...]
    needs: tuple[str, ...]
    version: int = 1


STAGES = {
    "prepare": Stage(("data",), ()),
    "baseline": Stage(("data", "backbone", "loss", "baseline", "seed"), ("prepare",)),
    "direct": Stage(("data", "backbone", "latent", "loss", "direct", "seed"), ("prepare",)),
    "pretrain": Stage(("data", "backbone", "latent", "loss", "pretrain", "seed"), ("prepare",)),
    "diffusion": Stage(("data", "latent", "diffusion", "seed"), ("prepare", "pretrain")),
    "joint": Stage(
        ("data", "backbone", "latent", "loss", "diffusion", "joint", "seed"), ("prepare", "pretrain", "diffusion")
    ),
    "evaluate": Stage(("data", "evaluate"), ("prepare",)),
}


# What stage 3 needs besides the data, by joint.start.
JOINT_NEEDS = {
    "stages": ("prepare", "pretrain", "diffusion"),
    "pretrain": ("prepare", "pretrain"),
    "scratch": ("prepare",),
}


def needs(stage: str, config: Config) -> tuple[str, ...]:
    """The earlier stages that ``stage`` needs under ``config``."""
    declared = lookup("stage", stage, STAGES)
    return JOINT_NEEDS[config.joint.start] if stage == "joint" else declared.needs


def check(config: Config, source: str) -> None:
    """InputError for what the registries know: an unknown backbone, schedule, layout or metric, a clash of options."""
    try:
        require("backbone.name:", config.backbone.name, module_names("blurdm.models.backbones"))
        require("data.layout:", config.data.layout, LAYOUTS)
        require("diffusion.alpha_schedule:", config.diffusion.alpha_schedule, ALPHA)
        require("diffusion.beta_schedule:", config.diffusion.beta_schedule, BETA)
        for metric in config.evaluate.metrics:
            require("evaluate.metrics:", metric, METRICS)
        if config.diffusion.condition_init == "sharp" and config.latent.sharp_batch_norm:
            raise InputError(
                "diffusion.condition_init: 'sharp' needs latent.sharp_batch_norm: false (a blur encoder has none)"
            )
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def plan(
    config: Config, stage: str, seed: int | None = None, model: str | None = None, cache: Path | None = None
) -> Run:
    """The run of ``stage`` and, through its inputs, all that it needs. ``evaluate`` takes the ``model`` stage to
    measure, or None for the blurred input itself. ``cache`` remembers digests of data files that did not change.
    """
    known: dict[str, Run] = {}

    def build(name: str) -> Run:
        if name not in known:
            declared = lookup("stage", name, STAGES)
            inputs: dict[str, Run | str] = {need: build(need) for need in needs(name, config)}
            if name == "prepare":
                inputs["raw"] = folder_digest(Path(config.data.root), cache)
            if name == "evaluate":
                # Weights of a metric that arrive later make a new run; otherwise it would stay "not available".
                inputs["metrics"] = ",".join(filter(available, config.evaluate.metrics))
                if model is not None:
                    inputs["model"] = build(model)
            needs_seed = "seed" in declared.reads
            if needs_seed and seed is None:
                raise InputError(f"stage '{name}' needs a seed")
            known[name] = Run(name, declared.version, config, seed if needs_seed else None, declared.reads, inputs)
        return known[name]

    return build(stage)


def plan_all(config: Config, stage: str, seeds: Iterable[int], cache: Path | None = None) -> list[Run]:
    """Every run of ``stage`` in the canonical chain: one per seed; ``evaluate``: per model and seed, and the input."""
    if stage == "prepare":
        return [plan(config, stage, cache=cache)]
    if stage == "evaluate":
        return [plan(config, stage, cache=cache)] + [
            plan(config, stage, seed, model, cache) for model in MODELS for seed in seeds
        ]
    return [plan(config, stage, seed, cache=cache) for seed in seeds]
