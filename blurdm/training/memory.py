"""Memory of a GPU that a training needs, counted on tensors without contents: nothing is computed, and no GPU asked."""

from functools import cache
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from blurdm.core.config import PLAIN, Compute, Config
from blurdm.core.errors import InputError
from blurdm.core.key import canonical_json, identity
from blurdm.core.runs import Resources, Run
from blurdm.models.precision import autocast, execution_on
from blurdm.training.distributed import BatchPart
from blurdm.training.throughput import module_and_loss

BYTES = 4  # of a number in fp32, in which weights, gradients, averages and the optimiser's two moments are
# Beside what the forward pass saves: gradients of activations, workspaces of convolutions, gaps of the allocator. Not
# measured: with it, MIMO-UNet+ needs about what was estimated for it in another way.
OVERHEAD = 1.6
CONTEXT = 0.6e9  # bytes: CUDA and its libraries, of every process
GIGABYTE = 1e9


def needed_bytes(config: Config, stage: str, ranks: int = 1) -> tuple[float, float]:
    """Bytes that training ``stage`` needs on each of so many GPUs: at the very least, and as expected.

    The largest of its batches counts. Compiled code may save less than the least.
    """
    section, compute = getattr(config, stage), config.compute
    spans = section.spans(config.data)
    crop, batch = max(((s.crop, s.batch_size) for s in spans), key=lambda size: size[0] ** 2 * size[1])
    changes = {"crop": crop, "batch_size": max(1, batch // (ranks * compute.micro_batches))}
    sized = config.model_copy(update={"data": config.data.model_copy(update=changes), "compute": PLAIN})
    weights, saved = _counted(_Sized(sized, stage, compute))
    kept = weights * (4 + (section.ema > 0))
    return kept + saved, kept + OVERHEAD * saved + CONTEXT


class _Sized:
    """A config, stage and precision; equal to others that train the same network on batches of the same size."""

    def __init__(self, config: Config, stage: str, compute: Compute) -> None:
        self.config, self.stage, self.precision = config, stage, compute.precision
        names = ("backbone", "latent", "diffusion", "loss")
        values = {name: identity(getattr(config, name)) for name in names if hasattr(config, name)}
        data = config.data
        self.text = canonical_json([values, stage, self.precision, data.crop, data.batch_size])

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Sized) and self.text == other.text


@cache
def _counted(sized: _Sized) -> tuple[int, int]:
    """Bytes of the weights that train, and of what a forward pass saves for the backward pass."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # takes a second to import

    module, loss = module_and_loss(sized.config, sized.stage, "cpu")
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    saved: dict[int, torch.UntypedStorage] = {}
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        own = {_storage(mode.from_tensor(tensor)) for tensor in (*module.parameters(), *module.buffers())}

        def save(tensor: torch.Tensor) -> torch.Tensor:
            if _storage(tensor) not in own:
                saved[_storage(tensor)] = tensor.untyped_storage()  # kept, so that no other gets its number
            return tensor

        cast = autocast(sized.precision, torch.device("cpu"))
        with saved_tensors_hooks(save, lambda tensor: tensor), torch.enable_grad(), cast:
            loss(BatchPart())
        count = sum(storage.nbytes() for storage in saved.values())
    return BYTES * sum(parameter.numel() for parameter in trained), count


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def require_memory(run: Run, resources: Resources, memory: int, name: str) -> None:
    """InputError if training ``run`` eagerly cannot fit in ``memory`` (bytes) of the GPU ``name``, before it starts."""
    sections: dict[str, Any] = {}
    for each in run.chain():
        sections |= each.sections
    config = Config.model_construct(**sections)
    least, _ = needed_bytes(config, run.stage, resources.ranks)
    if least > memory and execution_on(resources.device, config.compute) == "eager":
        raise InputError(
            f"{run.stage}: needs {least / GIGABYTE:.2g} GB at least on each GPU, and {name} has"
            f" {memory / GIGABYTE:.2g} GB; smaller data.batch_size or data.crop, more compute.micro_batches, or"
            " compute.precision: bf16 need less"
        )
