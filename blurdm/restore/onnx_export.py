"""A model as an ONNX file: the whole restoration, noise aside, checked with ONNX Runtime."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from blurdm.core.errors import InputError
from blurdm.core.store import write_bytes
from blurdm.models.network import Network
from blurdm.restore.models import find_model

TOLERANCE = 1e-4
GRID = 32  # px: sides of a model of any size are multiples of this, or of what the backbone pads to if that is more
EXAMPLE = (96, 128)
OPSET = 18


class _Restoration(nn.Module):
    """(image (1, 3, H, W) in [0, 1][, noise]) -> restored: ``Network.restore`` with plain tensors."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.network(image, self.network.latent(image, None, noise))[-1].clamp(0, 1)


def export_onnx(model: str | Path, file: Path, size: tuple[int, int] | None = None) -> float:
    """Write the model as ONNX for images of ``size`` (height, width), or of any that are multiples of GRID for None.

    Inputs: ``image`` (1, 3, H, W) float in [0, 1], and for a model with a noisy prior ``noise``, drawn from N(0, 1) by
    whoever runs it; output: ``restored``. Returns the largest difference to PyTorch that ONNX Runtime had on random
    images; InputError above TOLERANCE, where a size does not fit, or without the extra ``export``.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"ONNX export needs {error.name}: pip install 'blurdm[export]'") from None
    network = find_model(model).network
    grid = max(GRID, network.multiple)
    if size is not None and min(size) < 16:
        raise InputError(f"size {size[0]}x{size[1]}: should be at least 16x16 px")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "model.onnx")
        _write(network, written, size or EXAMPLE, None if size else grid)
        sizes = [size] if size else [EXAMPLE, (2 * grid, 5 * grid), (7 * grid, 3 * grid)]
        difference = max(_difference(network, written, tested) for tested in sizes)
        if not difference <= TOLERANCE:
            raise InputError(
                f"{file}: ONNX Runtime differs from PyTorch by {difference:.2g}; should be {TOLERANCE} at most"
            )
        write_bytes(file, written.read_bytes())
    return difference


def _inputs(network: Network, size: tuple[int, int], seed: int = 0) -> dict[str, Tensor]:
    """A random image of ``size``, and noise if the network needs it."""
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))
    noise = network.draw_noise([seed])
    return {"image": image} if noise is None else {"image": image, "noise": noise}


def _write(network: Network, file: Path, size: tuple[int, int], grid: int | None) -> None:
    inputs = _inputs(network, size)
    dynamic = None
    if grid is not None:
        height, width = (grid * torch.export.Dim(name, min=1, max=4096 // grid) for name in ("rows", "columns"))
        dynamic = {"image": {2: height, 3: width}, **({"noise": None} if "noise" in inputs else {})}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.export.export(
            _Restoration(network), tuple(inputs.values()), dynamic_shapes=dynamic, strict=False
        )
        torch.onnx.export(
            program,
            dynamo=True,
            f=str(file),
            input_names=list(inputs),
            output_names=["restored"],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )


def _difference(network: Network, file: Path, size: tuple[int, int]) -> float:
    """The largest difference between ONNX Runtime and PyTorch on a random image of ``size``."""
    import onnxruntime

    inputs = _inputs(network, size, seed=1)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (restored,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    expected = network.restore(inputs["image"], noise=inputs.get("noise"))
    return float(np.abs(restored - expected.numpy()).max())
