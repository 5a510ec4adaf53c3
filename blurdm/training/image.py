"""Training on images, stages 1 and 3 and their controls: phases of image loss, and the warm-up of the encoder."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

from torch import Tensor, nn

from blurdm.core.config import Compute, Loss, OnePhase, OnImages, Span, Warmup
from blurdm.core.errors import InputError
from blurdm.models.build import initialise
from blurdm.models.encoder import Encoder
from blurdm.models.network import Network
from blurdm.models.precision import full_precision, maybe_compile
from blurdm.training.batches import TrainingData, validation_psnr
from blurdm.training.distributed import BatchPart
from blurdm.training.image_loss import image_loss
from blurdm.training.loop import Phase
from blurdm.training.optim import ParameterGroups
from blurdm.training.step import LossParts


class PriorLoss(NamedTuple):
    """``of(images, noise of the latent)``: a scalar, added to the image loss. ``images``: the sharp one, the partial
    exposures at ``times``, the blurred one.
    """

    of: Callable[[Sequence[Tensor], Tensor | None], Tensor]
    times: tuple[float, ...]


def image_phases(
    network: Network,
    data: TrainingData,
    loss: Loss,
    compute: Compute,
    section: OnImages | OnePhase,
    prior_scale: float | tuple[float, ...],
    first_step: int = 0,
    prior_loss: PriorLoss | None = None,
) -> list[Phase]:
    """The phases of ``section``. ``first_step`` counts on from an earlier stage, so all arms see the same batches.

    The prior learns at ``prior_scale`` (one, or one for each phase) times the learning rate; frozen parameters are not
    trained.
    """
    images, spans = data.validation_images(), Spans(section.spans(data.data))
    restore = maybe_compile(partial(forward_pass, network), compute, str(data.device))
    times = () if prior_loss is None else prior_loss.times

    def step_loss(before: int, step: int, part: BatchPart) -> LossParts:
        """The loss of a step; its batch and noise derive from its number, of which ``before`` are of earlier phases."""
        number, (_, crop, size) = first_step + before + step, spans.at(before, step)
        exposures, _ = data.exposures("batch", number, times, size, part, crop)
        sharp, blur = exposures[0], exposures[-1]
        noise = part.of(network.draw_noise([data.noise_source("noise", number)] * size))
        total, terms = image_loss(restore(blur, sharp, noise), sharp, loss)
        if prior_loss is None:
            return total, terms
        added = prior_loss.of(exposures, noise)
        return total + added, {**terms, "prior": added.detach()}

    def groups(prior_scale: float) -> ParameterGroups:
        scales = [(network.backbone, 1.0), (network.prior, prior_scale)]
        trained = [([p for p in m.parameters() if p.requires_grad], scale) for m, scale in scales if m is not None]
        return [(parameters, scale) for parameters, scale in trained if parameters]

    def phase(before: int, scale: float, cosine: tuple[int, float]) -> Phase:
        size, step, trained = partial(spans.batch_size, before), partial(step_loss, before), partial(groups, scale)
        return Phase(network.kind, *cosine, size, trained, step, partial(_validate, images), section.shape)

    starts = accumulate((iterations for iterations, _ in section.phases), initial=0)
    scales = prior_scale if isinstance(prior_scale, tuple) else (prior_scale,) * len(section.phases)
    return [phase(*values) for values in zip(starts, scales, section.phases, strict=False)]


class Spans:
    """The crops and batches of a stage's steps."""

    def __init__(self, spans: list[Span]) -> None:
        self.spans, self._ends = spans, list(accumulate(span.iterations for span in spans))

    def at(self, before: int, step: int) -> Span:
        """Those of ``step`` of a phase that comes after ``before`` steps; of no steps at all, the only ones."""
        return self.spans[min(bisect_right(self._ends, before + step), len(self.spans) - 1)]

    def batch_size(self, before: int, step: int) -> int:
        return self.at(before, step).batch_size


def _validate(images: list[tuple[Tensor, Tensor]], module: nn.Module) -> float:
    """Validation PSNR of the network in ``module``."""
    assert isinstance(module, nn.ModuleDict)
    network = module["network"]
    assert isinstance(network, Network)
    return validation_psnr(lambda blur, sharp, seed: network.restore(blur, sharp, network.draw_noise([seed])), images)


def forward_pass(network: Network, blur: Tensor, sharp: Tensor, noise: Tensor | None) -> list[Tensor]:
    """The compiled part of a step: prior and backbone. (The compiler does not support the complex FFT loss.)"""
    outputs: list[Tensor] = network(blur, network.latent(blur, sharp, noise))
    return outputs


def warmup_phases(encoder: nn.Module, head: nn.Linear, kind: str, data: TrainingData, section: Warmup) -> list[Phase]:
    """An addition to the paper: the encoder first learns to predict the exposure length, so that its latent carries
    information before the backbone learns to ignore it. Empty when switched off; InputError if the data has no lengths.
    """
    if section.warmup_iterations == 0:
        return []
    lengths = data.crops.lengths()
    if lengths is None:
        raise InputError("warmup_iterations: this data set states no exposure length for its pairs; set it to 0")
    mean, spread = lengths[0], max(lengths[1], 1e-6)

    def loss(step: int, part: BatchPart) -> LossParts:
        blur, sharp, exposure = data.batch("warm-up batch", step, section.warmup_batch_size, part)
        assert exposure is not None
        latent = encoder(blur, sharp if kind == "pretrain" else blur)
        with full_precision(latent):
            predicted = head(latent).flatten(1).mean(1)  # over the tokens
        return (predicted - (exposure - mean) / spread).square().mean(), {}

    def groups() -> ParameterGroups:
        return [([*encoder.parameters(), *head.parameters()], 1.0)]

    size = section.warmup_batch_size
    return [Phase("warmup", section.warmup_iterations, section.warmup_lr, lambda step: size, groups, loss)]


def image_module(network: Network, seed: int) -> nn.ModuleDict:
    """``network``, and a head for the warm-up if it has an encoder, initialised from the seed and names."""
    parts: dict[str, nn.Module] = {"network": network}
    if isinstance(network.prior, Encoder):
        parts["head"] = nn.Linear(network.prior.size, 1)
    module = nn.ModuleDict(parts)
    initialise(module, seed)
    return module
