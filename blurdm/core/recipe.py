"""Config sections of the training stages: steps, learning rates, crops, and the diffusion itself."""

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from blurdm.core.fields import BatchSize, Count, CropSide, Fraction, NonNegative, Part, Positive, Section, Steps, later

if TYPE_CHECKING:
    from blurdm.core.config import Data


class Optimisation(Section):
    """How one stage is optimised."""

    optimizer: Literal["adam", "adamw"] = Field(description="adamw decouples the weight decay")
    lr_min: NonNegative = Field(description="end of the cosine")
    betas: tuple[Fraction, Fraction] = Field(description="decay of the means of gradient and squared gradient")
    weight_decay: NonNegative = Field(description="of all weights")
    grad_clip: Positive | None = Field(description="largest gradient norm; null: no clipping, as released")
    ema: Fraction = Field(description="decay of the weight average that a stage ends with; 0: the plain weights")
    validate_every: Count = Field(description="steps between two measurements on validation images")


class Warmup(Section):
    """Additions to the paper that make a small encoder carry information before the backbone learns to ignore it."""

    warmup_iterations: Annotated[int, Field(ge=0, le=10**9)] = Field(
        description="encoder learns the known exposure length; 0: off"
    )
    warmup_lr: Positive = Field(description="learning rate of the warm-up, the start of its cosine")
    warmup_batch_size: BatchSize = Field(description="crops per step of the warm-up")
    encoder_lr_scale: Positive | tuple[Positive, ...] = Field(
        description="encoder's learning rate relative to the backbone's, one for each"
        " cosine if there are several; 1 in the paper"
    )


class Span(NamedTuple):
    """Steps with crops of one size, in batches of one size."""

    iterations: int
    crop: int
    batch_size: int


class Course(Section):
    """How crop, batch and learning rate change while a stage trains, beyond one cosine for each learning rate."""

    crops: tuple[CropSide, ...] | None = later(None, "side of the training crops in each phase, px; null: data.crop")
    batch_sizes: tuple[BatchSize, ...] | None = later(
        None, "crops per step in each phase, over all ranks; null: data.batch_size"
    )
    lr_hold: Annotated[int, Field(ge=0, le=10**9)] = later(0, "steps that a learning rate stays before its cosine")
    lr_halve_every: Count | None = later(None, "steps after which the rate is halved; null: a cosine instead")

    @model_validator(mode="after")
    def _one_shape(self) -> "Course":
        if self.lr_hold and self.lr_halve_every:
            raise ValueError("lr_hold is of a cosine, and lr_halve_every has none; leave one out")
        return self


STEADY = Course()


class OnImages(Optimisation):
    """A stage on images, in phases: one value of ``iterations`` and ``lr`` for each."""

    iterations: int | tuple[Count, ...] = Field(description="optimisation steps, of each phase if there are several")
    lr: Positive | tuple[Positive | None, ...] = Field(
        description="learning rate at the start of each phase, with a fresh optimiser and a cosine of its own; null:"
        " the optimiser and the cosine of the phase before go on"
    )
    course: Course | None = later(
        None, "crop and batch of each phase, and the shape of the learning rate; null: those of data, and a cosine"
    )

    @model_validator(mode="after")
    def _one_value_per_phase(self) -> "OnImages":
        steps, rates, course = self.phase_steps, self.phase_rates, self.shape
        if len(steps) != len(rates) or not steps:
            raise ValueError(f"iterations and lr need one value per phase each, not {len(steps)} and {len(rates)}")
        if rates[0] is None:
            raise ValueError("lr: null goes on with the rate of the phase before; the first phase has none before")
        for name in ("crops", "batch_sizes"):
            values = getattr(course, name)
            if values is not None and len(values) != len(steps):
                raise ValueError(f"course.{name} needs one value per phase, not {len(values)} for {len(steps)}")
        scales = getattr(self, "encoder_lr_scale", None)
        if isinstance(scales, tuple) and len(scales) != len(self.phases):
            raise ValueError(f"encoder_lr_scale needs one value per cosine, not {len(scales)} for {len(self.phases)}")
        shortest = min(count for count, _ in self.phases)
        if course.lr_hold and course.lr_hold >= shortest:
            raise ValueError(f"course.lr_hold leaves no step for a cosine of {shortest}; should be smaller")
        return self

    @property
    def phase_steps(self) -> tuple[int, ...]:
        return self.iterations if isinstance(self.iterations, tuple) else (self.iterations,)

    @property
    def phase_rates(self) -> tuple[float | None, ...]:
        return self.lr if isinstance(self.lr, tuple) else (self.lr,)

    @property
    def shape(self) -> Course:
        """That of the learning rate."""
        return self.course or STEADY

    @property
    def phases(self) -> list[tuple[int, float]]:
        """Steps, and learning rate at the start, of what has an optimiser and a cosine of its own."""
        found: list[tuple[int, float]] = []
        for steps, lr in zip(self.phase_steps, self.phase_rates, strict=True):
            found = [*found, (steps, lr)] if lr is not None else [*found[:-1], (found[-1][0] + steps, found[-1][1])]
        return found

    def spans(self, data: "Data") -> list[Span]:
        """The phases' steps, crops and batches, in order."""
        steps, course = self.phase_steps, self.shape
        crops = course.crops or (data.crop,) * len(steps)
        sizes = course.batch_sizes or (data.batch_size,) * len(steps)
        return [Span(*values) for values in zip(steps, crops, sizes, strict=True)]


class TwoPhases(OnImages):
    """A control trained as long as stages 1 and 3 together: a fresh optimiser and cosine per phase, as there."""

    iterations: tuple[Count, ...] = Field(description="optimisation steps of each phase")
    lr: tuple[Positive | None, ...] = Field(
        description="learning rate at the start of each phase's cosine; null: the optimiser and the cosine of the phase"
        " before go on"
    )


class OnePhase(Optimisation):
    iterations: Count = Field(description="optimisation steps")
    lr: Positive = Field(description="learning rate at the start of the cosine")

    @property
    def shape(self) -> Course:
        return STEADY

    @property
    def phases(self) -> list[tuple[int, float]]:
        return [(self.iterations, self.lr)]

    def spans(self, data: "Data") -> list[Span]:
        return [Span(self.iterations, data.crop, data.batch_size)]


class Initialised(Section):
    """A stage that can start from weights that are there."""

    init: str = Field(
        "",
        description="run folder or weights file (published ones too) that training starts from; their digest enters the"
        ' key; "": fresh weights, or those of the earlier stages',
        json_schema_extra={"place": True},
    )


class Baseline(TwoPhases, Initialised):
    """The backbone without prior."""


class Direct(TwoPhases, Warmup, Initialised):
    """The control: the encoder on the blurred image feeds the backbone; no oracle, no diffusion."""


class Pretrain(OnImages, Warmup, Initialised):
    """Stage 1: sharp encoder and backbone, with the oracle latent."""

    iterations: Count | tuple[Count, ...] = Field(description="optimisation steps, of each phase if there are several")


class Diffusion(OnePhase):
    """Stage 2: the blur encoder and the two estimators; and everything about the diffusion itself."""

    steps: Steps = Field(description="T")
    type: Literal["dual", "blur", "noise", "residual", "mlp", "none"] = Field(
        description="dual: the paper's; residual: a constant exposure from which blur is subtracted, RDDM style;"
        " mlp: one pass of an estimator, no diffusion; none: the blur encoder's latent itself"
    )
    start: Literal["blur", "gaussian"] = Field(
        description="z_T: the blur latent plus noise, as in the paper; gaussian: the noise alone"
    )
    alpha_schedule: str = Field(description="how the exposure grows: a name in ALPHA of blurdm/diffusion/schedules.py")
    alpha_start: Positive = Field(description="alpha_0; positive because the last reverse step divides by it")
    alpha_end: Positive = Field(description="alpha_T")
    beta_schedule: str = Field(description="how the noise grows: a name in BETA there")
    beta_start: NonNegative = Field(description="beta_1")
    beta_end: NonNegative = Field(description="beta_T")
    noise_rule: Literal["official", "paper", "variance"] = Field(description="beta-bar from alpha and beta")
    fixed_terminal_noise: NonNegative | None = Field(description="scale the noise so that beta-bar_T has this value")
    first_step: Literal["exact", "released"] = Field(
        description="last reverse step: exact: Eq. 10; released: with the factor that the released code drops"
    )
    eta: Annotated[float, Field(ge=0, le=1)] = Field(description="0: deterministic, as in the paper; 1: ancestral")
    estimator_layers: Annotated[int, Field(ge=2, le=1000)] = Field(description="linear layers of each estimator")
    estimator_init_std: Positive | None = Field(description="normal init of each estimator's last layer; null: default")
    estimator: Literal["plain", "residual"] = later(
        "plain",
        "plain: a stack, as in the paper; residual: each hidden layer adds to what it gets, at first to"
        " z_t less the condition",
    )
    predicts: Literal["noise", "clean"] = later(
        "noise",
        "noise: e_t and the noise, an estimator each, as in the paper; clean: one estimator of z_0, from which both"
        " follow",
    )
    condition: Literal["latent", "features"] = later(
        "latent",
        "what estimators see of the blurred image: the latent that z_T starts from, as in the paper; features: an MLP"
        " of their own on the encoder's pooled features",
    )
    condition_init: Literal["scratch", "sharp"] = Field(
        description="sharp: blur encoder starts from the stage-1 encoder"
    )
    standardize: bool = Field(description="diffuse latents of zero mean and unit spread (not in the paper)")
    standardize_crops: Annotated[int, Field(ge=1, le=10**6)] = Field(
        description="training crops over which mean and spread are taken"
    )
    loss: Literal["charbonnier", "l1", "l2"] = Field(description="between latents; l1 in the paper")
    supervision: Literal["final", "residual_sum", "path", "exposures"] = Field(
        description="final: z_0, as in the paper; residual_sum: and the total of e_t; path: every z_t, on a straight"
        " line; exposures: every z_t, by the latents of the partial exposures that data.fresh_blur knows"
    )

    @model_validator(mode="after")
    def _exposure_grows(self) -> "Diffusion":
        if self.alpha_end <= self.alpha_start:
            raise ValueError(f"alpha_end must be larger than alpha_start, not {self.alpha_end} <= {self.alpha_start}")
        return self


class Joint(OnImages, Initialised):
    """Stage 3: everything together."""

    iterations: Annotated[int, Field(ge=0, le=10**9)] | tuple[Count, ...] = Field(
        description="optimisation steps, of each phase if there are several; 0: stage 1's backbone and stage 2's"
        " generator put together, not trained further"
    )
    start: Literal["stages", "pretrain", "scratch"] = Field(
        description="what is trained on: stages 1 and 2, as in the paper; stage 1 alone (1+3); nothing (3)"
    )
    freeze: tuple[Part, ...] = Field(description="parts that stage 3 leaves as they are; none in the paper")
    prior_loss_weight: NonNegative = Field(description="of stage 2's loss, kept in stage 3; 0 in the paper")
    prior_lr_scale: Positive = Field(
        description="prior generator's learning rate relative to the backbone's; 1 in the paper"
    )

    @model_validator(mode="after")
    def _something_to_do(self) -> "Joint":
        if self.iterations == 0 and self.start != "stages":
            raise ValueError(f"iterations 0 leaves a network untrained unless start is 'stages', not '{self.start}'")
        if self.prior_loss_weight and self.start == "scratch":
            raise ValueError("prior_loss_weight needs stage 1's sharp encoder, so start cannot be 'scratch'")
        return self
