"""The typed, frozen, complete description of one experiment: one section per concern, every number one would ablate.

Validated by pydantic in strict mode; config_io.py reads it from YAML. Nothing here imports torch.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from blurdm.core.fields import (
    BatchSize,
    CropSide,
    Depth,
    Fraction,
    JpegQuality,
    NonNegative,
    Pixels,
    Scale,
    Seed,
    Steps,
    Width,
    later,
)
from blurdm.core.fields import Count as Count
from blurdm.core.fields import Level as Level
from blurdm.core.fields import Part as Part
from blurdm.core.fields import Positive as Positive
from blurdm.core.fields import Section as Section
from blurdm.core.recipe import STEADY as STEADY
from blurdm.core.recipe import Baseline as Baseline
from blurdm.core.recipe import Course as Course
from blurdm.core.recipe import Diffusion as Diffusion
from blurdm.core.recipe import Direct as Direct
from blurdm.core.recipe import Joint as Joint
from blurdm.core.recipe import OnePhase as OnePhase
from blurdm.core.recipe import OnImages as OnImages
from blurdm.core.recipe import Optimisation as Optimisation
from blurdm.core.recipe import Pretrain as Pretrain
from blurdm.core.recipe import Span as Span
from blurdm.core.recipe import Warmup as Warmup


class CameraMotion(Section):
    """How the camera moves during an exposure (blurdm/data/camera_path.py)."""

    motion: Literal["pan", "shake", "hand"] = Field(
        description="pan: nearly horizontal; shake: 6 degrees of freedom; hand: and with more bends, at uneven speed"
    )
    length: tuple[Pixels, Pixels] = Field(description="range of the longest path of a scene point, px")
    angle: NonNegative = Field(description="pan: largest angle to the horizontal, degrees")
    speed_variation: Fraction = Field(
        description="pan: relative change of speed along the exposure; hand: spread of the logarithm of the speed"
    )
    tremor: NonNegative = Field(description="pan: tremor across the path, relative to the length")
    reference: Literal["middle", "mean"] = later(
        "middle",
        "where the sharp image is seen from: where the camera is in the middle of the exposure, as in the paper; or its"
        " mean place, so that sharp and blurred image are not shifted against each other where the speed is uneven",
    )

    @field_validator("length")
    @classmethod
    def _in_order(cls, length: tuple[float, float]) -> tuple[float, float]:
        if length[0] > length[1]:
            raise ValueError("should be [shortest, longest] in px")
        return length


Range = tuple[NonNegative, NonNegative]


class Degradation(Section):
    """What a camera and its files do to a blurred image after the exposure (blurdm/data/blur/degradation.py)."""

    share: Annotated[float, Field(ge=0, le=1)] = Field(
        description="probability of noise, of sharpening and of compression, each drawn for itself"
    )
    noise: Range = Field(
        description="range of the standard deviation in linear light at white, in [0, 1]; it falls with the square root"
        " of the light, as photons have it"
    )
    sharpen: Range = Field(description="range of the weight of an unsharp mask of 1 px")
    jpeg: tuple[JpegQuality, JpegQuality] = Field(description="range of the quality of JPEG")

    @field_validator("noise", "sharpen", "jpeg")
    @classmethod
    def _in_order(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if ends[0] > ends[1]:
            raise ValueError("should be [lowest, highest]")
        return ends


class Variation(Section):
    """What makes pairs more like the world's than one photo and one blur are."""

    sharp: Annotated[float, Field(ge=0, le=1)] = Field(
        description="share of the pairs whose blurred image is the sharp one"
    )
    scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = Field(
        description="whole factors that training photos are reduced by, one drawn for each pair"
    )
    highlights: Annotated[float, Field(ge=1, le=100)] = Field(
        description="clipped parts shine up to so many times as bright as white, and clip again after the exposure"
    )
    leaves: Annotated[int, Field(ge=0, le=10_000)] = Field(
        description="procedural images (dead leaves) to train on beside the photos, with as many pairs each"
    )


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
    variation: Variation | None = later(None, "what the pairs have beside the blur of whole photos; null: nothing")
    degradation: Degradation | None = later(None, "of the blurred images; null: none")


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
    degradation: Degradation | None = later(
        None, "of the blurred training crops, drawn anew at every step; null: as the data set has them"
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
    all_reduce: Literal["exact", "overlapped"] = later(
        "exact",
        "how ranks average gradients. exact: after the backward pass: N ranks take the steps of N micro-batches;"
        " overlapped: during it, which is the same up to rounding",
    )
    micro_batches: BatchSize = later(
        1,
        "parts that a batch is computed in, one after another, for less memory; batch normalisation sees a part at a"
        " time",
    )
    execution: Literal["auto", "eager", "compiled", "graphs"] = later(
        "eager",
        "compiled: by torch.compile, which takes a minute or more first; graphs: and on CUDA replayed as graphs, for"
        " steps of many small kernels; auto: compiled on a GPU, eager on a CPU",
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
