"""A metric of pyiqa as pyiqa makes it, from the weights that this machine has: nothing is downloaded silently."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from blurdm.core.errors import InputError, one_line


class MissingWeights(Exception):
    """pyiqa asks for weights that are not on this machine; the message says where they would lie."""


def import_pyiqa(metric: str) -> Any:
    """The package; InputError with what to install for ``metric`` if it is not there."""
    try:
        import pyiqa
    except ImportError:
        raise InputError(f"metric '{metric}' needs pyiqa: pip install 'blurdm[metrics]'") from None
    return pyiqa


def any_pyiqa(name: str, own: str, device: str) -> Callable[..., Tensor]:
    """pyiqa's metric ``own`` as a function of images (1, 3, H, W) in [0, 1], called ``name`` in errors.

    InputError names the file of weights that is missing. The function draws the same random crops for every image, and
    raises InputError for an image that the metric refuses, or where it is no finite number.
    """
    pyiqa = import_pyiqa(name)
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    get = f'where there is a network, python -c "import pyiqa; pyiqa.create_metric({own!r})" puts them there'
    try:
        with _offline():
            metric = pyiqa.create_metric(own, device=device)
    except (MissingWeights, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        place = error if isinstance(error, MissingWeights) else HF_HUB_CACHE
        raise InputError(
            f"metric '{name}' is not available, its weights are not on this machine: {place}; {get}"
        ) from None
    except Exception as error:  # of any kind: it depends on packages that the metric is made of
        reason = one_line(str(error)) or type(error).__name__
        raise InputError(f"metric '{name}' is not available, pyiqa cannot make it here: {reason}") from None

    def measure(*images: Tensor) -> Tensor:
        devices = [torch.device(device)] if device != "cpu" else []
        try:
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(0)
                output = metric(*images)
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, IndexError, RuntimeError, ValueError) as error:
            size = f"{images[0].shape[-1]} x {images[0].shape[-2]}"
            reason = one_line(str(error)) or type(error).__name__
            raise InputError(f"metric '{name}' refuses an image of {size} px ({reason})") from None
        value: Tensor = torch.as_tensor(output).double()
        if value.numel() != 1 or not value.isfinite().all():
            raise InputError(f"metric '{name}' is {value.flatten().tolist()}; should be a finite number")
        return value.reshape(1)

    return measure


@contextmanager
def _offline() -> Iterator[None]:
    """Within it, whatever would be downloaded is ``MissingWeights``, or an error of Hugging Face's own."""
    import huggingface_hub.constants

    def to_file(url: str, target: str, *_: Any, **__: Any) -> None:
        raise MissingWeights(Path(target).absolute())

    def to_memory(request: Any, *_: Any, **__: Any) -> None:
        raise MissingWeights(f"their cache folder ({getattr(request, 'full_url', request)})")

    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))  # "Downloading ..."
        for place in ("torch.hub", "pyiqa.utils.download_util"):
            stack.enter_context(patch(f"{place}.download_url_to_file", to_file))
        stack.enter_context(patch("urllib.request.urlopen", to_memory))
        stack.enter_context(patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True))
        yield
