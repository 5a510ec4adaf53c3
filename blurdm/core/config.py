"""The typed, frozen, complete description of one experiment: one section per concern, every number one would ablate.

Validated by pydantic in strict mode; config_io.py reads it from YAML. Nothing here imports torch.
"""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[float, Field(gt=0)]
Pixels = Annotated[float, Field(gt=0, le=10_000)]
NonNegative = Annotated[float, Field(ge=0)]
# Bounds far above what anybody trains, so that a slip of the hand is one line and not a full memory.
Count = Annotated[int, Field(ge=1, le=10**9)]
BatchSize = Annotated[int, Field(ge=1, le=4096)]
CropSide = Annotated[int, Field(ge=16, le=16_384)]
Width = Annotated[int, Field(ge=1, le=1024)]
Depth = Annotated[int, Field(ge=1, le=1000)]
Steps = Annotated[int, Field(ge=1, le=10_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Level = Literal["coarse", "middle", "fine"]
Part = Literal["encoder", "estimators", "fusion", "backbone"]


def later(legacy_default: Any, description: str) -> Any:
    """A field that came after runs were made: a config without it still loads, and it stays out of keys, at the value
    that those runs had.
    """
    return Field(legacy_default, description=description, json_schema_extra={"legacy_default": legacy_default})


class Section(BaseModel):
    """Frozen, strict, no unknown keys: a typo or a wrong type is an error, never a default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class CameraMotion(Section):
    """How the camera moves during an exposure (blurdm/data/camera_path.py)."""

    motion: Literal["pan", "shake"] = Field(description="pan: nearly horizontal; shake: 6 degrees of freedom")
    length: tuple[Pixels, Pixels] = Field(description="range of the longest path of a scene point, px")
    angle: NonNegative = Field(description="pan: largest angle to the horizontal, degrees")
    speed_variation: Fraction = Field(description="pan: relative change of speed along the exposure")
    tremor: NonNegative = Field(description="pan: tremor across the path, relative to the length")

    @field_validator("length")
    @classmethod
    def _in_order(cls, length: tuple[float, float]) -> tuple[float, float]:
        if length[0] > length[1]:
            raise ValueError("should be [shortest, longest] in px")
        return length


class Synthesis(CameraMotion):
    """How pairs are made from sharp photos (blurdm/data/blur/formation.py); not used for a data set that has pairs."""

    pairs: str = Field(
        "", exclude=True, description="the folder that the pairs are made in, from the photos in data.root"
    )
    photos: str = Field(
        "", description="folder of sharp photos, if data.root is that of the pairs, as in configs of earlier releases"
    )
    test_photos: tuple[str, ...] = Field(description="photos (stems) kept for test; they never enter train/")
    exclude: tuple[str, ...] = Field(
        default=(), description="photos used nowhere, such as the other eye of a test photo"
    )
    foreground: Annotated[float, Field(ge=0, le=1)] = Field(description="probability of a moving foreground layer")
    train_pairs: Annotated[int, Field(ge=1, le=10**6)] = Field(description="pairs per training photo")
    test_pairs: Annotated[int, Field(ge=1, le=10**6)] = Field(description="pairs per test photo")
    window: tuple[Count, Count] = Field(description="height and width of a pair, px (smaller where the photo is)")
    seed: Seed = Field(description="of windows and camera paths")


class Data(Section):
    """What the networks are trained and measured on, and how training crops are drawn."""

    root: str = Field(
        description="the data folder, which DVC watches: pairs, or photos if there is a synthesis; a place, so never"
        " part of a key",
        json_schema_extra={"place": True},
    )
    layout: str = Field(description="gopro, hide, realblur_j, realblur_r or folders")
    val_scenes: Annotated[int, Field(ge=1, le=10_000)] | tuple[str, ...] = Field(
        description="scenes carved from train: number or names"
    )
    val_images: Count = Field(description="images of these scenes measured during training, evenly spaced")
    batch_size: BatchSize = Field(description="crops per optimisation step, over all ranks")
    crop: CropSide = Field(description="side of the square training crop, px")
    flips: bool = Field(description="random horizontal and vertical flips")
    rotations: bool = Field(description="random rotations by multiples of 90 degrees")
    fresh_blur: CameraMotion | None = later(
        None,
        "how training crops of the sharp images are blurred, re-sampled at every step; null: as the data set has them."
        " Validation and test images always are as the data set has them",
    )


class OtherTestSet(Section):
    """Another data set, whose test pairs are restored and measured instead of those of ``data``."""

    root: str = Field(description="its folder; a place, so never part of a key", json_schema_extra={"place": True})
    layout: str = Field(description="as data.layout")


class Inference(Section):
    """Evaluation as the authors of a network do it: padding, and means over windows."""

    padding: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        description="sides of an image are padded to multiples of this, before the prior sees it too; null: as trained"
    )
    padding_mode: Literal["reflect", "zeros"] = Field(description="what is padded at the right and lower edge")
    pooling_window: Annotated[int, Field(ge=16, le=65_536)] | None = Field(
        description="nafnet: means over windows of this side at full resolution (TLC), not over the image; null: image"
    )


class Backbone(Section):
    """The network that restores, alike with and without prior."""

    name: str = Field(description="a file of blurdm/models/backbones")
    width: Width = Field(description="channels at full resolution")
    blocks: Depth | Annotated[tuple[Depth, ...], Field(min_length=1, max_length=100)] = Field(
        description="depth: one number for every level, or one per level (each backbone says which those are)"
    )
    dropout: Fraction = Field(description="rate, where the backbone has it")
    centre: Annotated[float, Field(ge=0, le=1)] | None = later(
        None, "of the values that it works on; null: 0.5 for mimo_unet and stripformer, as BlurDM has it, else 0"
    )
    inference: Inference | None = later(None, "as its authors evaluate it; null: as it is trained")


class Latent(Section):
    """The latent, its encoder, and how it enters the backbone."""

    size: Annotated[int, Field(ge=1, le=8192)] = Field(description="numbers per latent vector; 256 in the paper")
    tokens: Literal[1, 4, 16] = Field(description="latent vectors per image, on a square grid; 1 in the paper")
    features: Width = Field(description="channels of the encoder's residual blocks")
    blocks: Depth = Field(description="residual blocks of the encoder")
    sharp_batch_norm: bool = Field(description="batch normalisation in the sharp encoder, as released")
    unshuffle: Literal[1, 2, 4] = Field(
        description="pixel-unshuffle of the input; 4 in the paper, the rest by strided convs"
    )
    pooling: Literal["avg", "max", "attention"] = Field(description="how features become a token; avg in the paper")
    encoder_init: Literal["default", "kaiming"] = Field(
        description="default: PyTorch's, as released, under which a latent"
        " starts almost the same for every image; kaiming: signal of unit size through every layer (not in the paper)"
    )
    normalize_input: bool = Field(description="contrast-normalise the encoder's input (not in the paper)")
    gain: Literal["k", "1+k"] = Field(description="fusion x*gain + shift; the paper has k")
    fusion_init_std: NonNegative | None = Field(
        description="normal init of the fusion layers; 0: with gain 1+k the backbone as it is; null: PyTorch's default"
    )
    fusion_levels: tuple[Level, ...] = Field(min_length=1, description="decoder levels that see it; all in the paper")


class Term(Section):
    """One more term of the image loss."""

    name: str = Field(description="a file of blurdm/training/losses")
    weight: Positive


class Loss(Section):
    """The image loss, shared by every stage that trains on images."""

    content: str = Field(description="of the difference of pixels: a file of blurdm/training/losses")
    fft: Literal["none", "height", "2d"] = Field(description="height: the released 1-D transform; 2d: the true one")
    fft_weight: NonNegative = Field(description="weight of the L1 difference of Fourier coefficients")
    clamp: bool = Field(description="clamp the outputs to the image range before the loss, as released")
    terms: tuple[Term, ...] = later(
        (),
        "further terms, each {name, weight}, of the output at full resolution alone; content and fft are of every scale"
        " that a backbone puts out",
    )

    @field_validator("terms")
    @classmethod
    def _once_each(cls, terms: tuple[Term, ...]) -> tuple[Term, ...]:
        if len({term.name for term in terms}) < len(terms):
            raise ValueError("should name each loss once")
        return terms


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
    encoder_lr_scale: Positive = Field(description="encoder's learning rate relative to the backbone's; 1 in the paper")


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

    def spans(self, data: Data) -> list[Span]:
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

    def spans(self, data: Data) -> list[Span]:
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
    condition_init: Literal["scratch", "sharp"] = Field(
        description="sharp: blur encoder starts from the stage-1 encoder"
    )
    standardize: bool = Field(description="diffuse latents of zero mean and unit spread (not in the paper)")
    standardize_crops: Annotated[int, Field(ge=1, le=10**6)] = Field(
        description="training crops over which mean and spread are taken"
    )
    loss: Literal["charbonnier", "l1", "l2"] = Field(description="between latents; l1 in the paper")
    supervision: Literal["final", "residual_sum", "path"] = Field(
        description="final: z_0, as in the paper; residual_sum: and the total of e_t; path: every z_t"
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


class Restore(Section):
    """How test images are restored, and which restored images are kept."""

    foreign: bool = Field(description="also restore with another photo's latent, to see whether the prior is used")
    steps: Steps | None = Field(description="reverse steps when restoring; null: as many as in training")
    eta: Annotated[float, Field(ge=0, le=1)] | None = Field(description="eta when restoring; null: as in training")
    noise_seed: Seed = Field(description="the noise of a photo derives from this and its name")
    tile: Annotated[int, Field(ge=32, le=65_536)] | None = Field(
        description="px: restore in tiles of this side; null: whole images"
    )
    tile_latent: Literal["photo", "tile"] = Field(description="the latent of a tile: that of the photo, or its own")
    keep: Literal["all", "samples", "none"] = Field(
        description="restored images kept as 8-bit PNG. all: a metric added later restores nothing again; samples:"
        " those of samples_per_scene; whatever is not kept is restored again to be measured"
    )
    samples_per_scene: Annotated[int, Field(ge=0)] = Field(
        description="images per scene that are shown in reports and whose reverse process is followed"
    )


class Measure(Section):
    """What is measured on restored images."""

    metrics: tuple[str, ...] = Field(
        description="psnr, ssim, psnr_y, ssim_y, lpips, lpips_256, dists, niqe, musiq, or pyiqa:NAME"
    )
    protocol: str = Field(description="how each metric is computed: standard, blurdm or realblur")


class Compute(Section):
    """How training computes, as far as it changes a result."""

    precision: Literal["fp32", "tf32", "bf16"] = later(
        "fp32",
        "tf32: products and convolutions of a GPU, fp32 on a CPU; bf16: the networks, but for latents, estimators and"
        " losses",
    )
    micro_batches: BatchSize = later(
        1,
        "parts that a batch is computed in, one after another, for less memory; batch normalisation sees a part at a"
        " time",
    )
    execution: Literal["eager", "compiled", "graphs"] = later(
        "eager",
        "compiled: by torch.compile, which takes a minute or more first; graphs: and on CUDA replayed as graphs, for"
        " steps of many small kernels",
    )

    @model_validator(mode="after")
    def _graphs_are_whole(self) -> "Compute":
        if self.execution == "graphs" and self.micro_batches > 1:
            raise ValueError(f"micro_batches must be 1 with execution graphs, not {self.micro_batches}")
        return self


PLAIN = Compute()  # as before there was a choice


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError("should be one or more, all different")
    return seeds


class Config(Section):
    """The whole truth about a chain; ``seeds`` says which training seeds it is run with."""

    seeds: Annotated[tuple[Seed, ...], AfterValidator(_distinct)] = Field(
        description="training seeds, a chain of runs each"
    )
    synthesis: Synthesis | None
    data: Data
    test: OtherTestSet | None = None
    compute: Compute = PLAIN
    backbone: Backbone
    latent: Latent
    loss: Loss
    baseline: Baseline
    direct: Direct
    pretrain: Pretrain
    diffusion: Diffusion
    joint: Joint
    restore: Restore
    measure: Measure
