"""THE table of stages and arms. What a stage or an arm is stands here alone; everything else derives from it.

A stage computes (``blurdm.stages``); an arm is what a restoration is compared as. Planning, restoring, loading, tables,
figures, profiles and MLflow read these tables; a test holds ``dvc.yaml`` to them. No torch here.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

from blurdm.core.config import (
    Backbone,
    Baseline,
    Compute,
    Data,
    Diffusion,
    Direct,
    Joint,
    Latent,
    Loss,
    Measure,
    Pretrain,
    Restore,
)


# What each stage can access of a config. A field is a section of Config, or the seed.
@dataclass(frozen=True)
class PrepareSections:
    data: Data


@dataclass(frozen=True)
class BaselineSections:
    data: Data
    backbone: Backbone
    loss: Loss
    baseline: Baseline
    compute: Compute
    seed: int


@dataclass(frozen=True)
class DirectSections:
    data: Data
    backbone: Backbone
    latent: Latent
    loss: Loss
    direct: Direct
    compute: Compute
    seed: int


@dataclass(frozen=True)
class PretrainSections:
    data: Data
    backbone: Backbone
    latent: Latent
    loss: Loss
    pretrain: Pretrain
    compute: Compute
    seed: int


@dataclass(frozen=True)
class DiffusionSections:
    data: Data
    latent: Latent
    diffusion: Diffusion
    compute: Compute
    seed: int


@dataclass(frozen=True)
class JointSections:
    data: Data
    backbone: Backbone
    latent: Latent
    loss: Loss
    diffusion: Diffusion
    joint: Joint
    compute: Compute
    seed: int


@dataclass(frozen=True)
class RestoreSections:
    data: Data
    restore: Restore


@dataclass(frozen=True)
class MeasureSections:
    data: Data
    measure: Measure


@dataclass(frozen=True)
class Stage:
    """``sections``: the config sections it can access. ``needs``: earlier stages. ``function``: module:name.

    ``code``: packages and modules of blurdm that its result depends on; their digest is part of its key. A package
    stands for the modules directly in it; ``models.backbones.*`` for the file of the config's own backbone.
    ``trains``: the prior generator, or a ``Network`` of this kind, which restores photos. ``parts``: sections that
    rebuild it. ``device``: whether it computes on the device that is asked for, or on the CPU whatever is asked for. A
    stage whose own section is null in a config is no part of its chain.
    """

    sections: type
    needs: tuple[str, ...]
    code: tuple[str, ...]
    function: str
    trains: Literal["prior", "baseline", "direct", "pretrain", "joint"] | None = None
    parts: tuple[str, ...] = ()
    device: Literal["any", "cpu"] = "any"

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Names of the sections, ``seed`` among them where the stage draws random numbers."""
        return tuple(field.name for field in fields(self.sections))


DATA = ("core.seeding", "data")
TRAINING = (*DATA, "data.blur", "models", "metrics.psnr", "metrics.weights", "training", "training.losses")
IMAGES = (*TRAINING, "models.backbones.*", "stages.images", "stages.training")
LATENT = (*TRAINING, "models.backbones.*", "diffusion", "stages.training")
PRIOR_REPORT = ("metrics.probe", "stages.prior_report")

STAGES = {
    "prepare": Stage(PrepareSections, (), (*DATA, "stages.prepare"), "blurdm.stages.prepare:prepare", device="cpu"),
    "baseline": Stage(
        BaselineSections, ("prepare",), IMAGES, "blurdm.stages.images:baseline", "baseline", ("backbone",)
    ),
    "direct": Stage(
        DirectSections,
        ("prepare",),
        (*IMAGES, *PRIOR_REPORT, "stages.direct"),
        "blurdm.stages.direct:direct",
        "direct",
        ("backbone", "latent"),
    ),
    "pretrain": Stage(
        PretrainSections, ("prepare",), IMAGES, "blurdm.stages.images:pretrain", "pretrain", ("backbone", "latent")
    ),
    "diffusion": Stage(
        DiffusionSections,
        ("prepare", "pretrain"),
        (*LATENT, "stages.latent"),
        "blurdm.stages.latent:diffusion",
        "prior",
        ("latent", "diffusion"),
    ),
    "joint": Stage(
        JointSections,
        ("prepare", "pretrain", "diffusion"),
        (*LATENT, *PRIOR_REPORT, "stages.joint"),
        "blurdm.stages.joint:joint",
        "joint",
        ("backbone", "latent", "diffusion"),
    ),
    "restore": Stage(
        RestoreSections,
        ("prepare",),
        (
            *("core.seeding", "data.pairs", "diffusion", "metrics.psnr", "models", "models.backbones.*"),
            *("restore.latent", "restore.memory", "restore.models", "restore.tensors", "restore.tiling"),
            *("stages.restore", "stages.test_images", "stages.trajectory"),
        ),
        "blurdm.stages.restore:restore",
    ),
    "measure": Stage(
        MeasureSections,
        ("prepare", "restore"),
        (
            *("data.pairs", "metrics.alignment", "metrics.any_pyiqa", "metrics.foreign", "metrics.measure"),
            *("metrics.protocols", "metrics.psnr", "metrics.similarity", "metrics.weights"),
            *("restore.tensors", "stages.measure", "stages.test_images"),
        ),
        "blurdm.stages.measure:measure",
    ),
}
TRAINED = tuple(name for name, stage in STAGES.items() if stage.trains)
MODELS = tuple(name for name, stage in STAGES.items() if stage.trains and stage.trains != "prior")


@dataclass(frozen=True)
class Arm:
    """``stage``: the model stage that restores, None for the blurred input. ``latent``: that of the image itself, of
    another photo (``foreign``, a diagnosis), or none. ``title`` in tables; ``group`` heads rows that are no method of
    their own. ``color``, ``mark`` and ``line`` belong to the arm in every figure; ``curve``: title of its training
    curve if that differs. ``addition``: the part added to a backbone, as in "FFTformer + BlurDM".
    """

    stage: str | None
    latent: Literal["own", "foreign"] | None
    title: str
    color: str
    mark: str
    line: str = "-"
    group: str = ""
    addition: str = ""
    curve: str = ""


BOUND, DIAGNOSIS = "upper bound (sees the sharp image)", "diagnosis: another photo's latent"
ARMS = {
    "blurred": Arm(None, None, "Blurred input", "#7F7F7F", "x"),
    "baseline": Arm("baseline", "own", "Baseline", "#0072B2", "s"),
    "direct": Arm("direct", "own", "Direct control", "#E69F00", "D", "--", addition="direct encoder"),
    "blurdm": Arm("joint", "own", "BlurDM", "#D55E00", "o", addition="BlurDM", curve="BlurDM stage 3"),
    "oracle": Arm(
        "pretrain", "own", "Oracle latent", "#009E73", "^", ":", BOUND, curve="BlurDM stage 1 (oracle latent)"
    ),
    "blurdm_foreign": Arm("joint", "foreign", "BlurDM, mismatched latent", "#CC79A7", "v", "-", DIAGNOSIS),
    "oracle_foreign": Arm("pretrain", "foreign", "Oracle, mismatched latent", "#56B4E9", "P", "-", DIAGNOSIS),
}
INPUT = "blurred"  # what every restoration should be better than
BASELINE, METHOD = "baseline", "blurdm"  # the published comparison: the backbone alone, and with BlurDM
ORACLE = "oracle"  # the bound: its latent sees the sharp image
METHODS = tuple(name for name, arm in ARMS.items() if arm.stage and not arm.group)  # trained, and compared as equals
COMPARISONS = (
    ("blurdm", "baseline"),
    ("blurdm", "direct"),
    ("direct", "baseline"),
    ("oracle", "oracle_foreign"),
    ("blurdm", "blurdm_foreign"),
)


def arms_of(stage: str | None) -> dict[str, Arm]:
    """The arms that a model of ``stage`` is measured as, its own latent first; of None, the blurred input's."""
    return {name: arm for name, arm in ARMS.items() if arm.stage == stage}


def arm_of(stage: str | None) -> str:
    """The arm of ``stage`` with its own latent."""
    return next(iter(arms_of(stage)))
