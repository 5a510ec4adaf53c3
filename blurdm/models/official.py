"""Weights that were trained with the official code, as our modules: entries renamed, shapes checked, nothing executed.

The names of a backbone's entries are rules beside the backbone (``OFFICIAL``): patterns and what replaces them.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from blurdm.core.config import Diffusion, Latent
from blurdm.core.errors import InputError
from blurdm.core.registry import load_module, module_names
from blurdm.models.build import BACKBONES, build_backbone
from blurdm.models.encoder import Encoder
from blurdm.models.prior import PriorGenerator

Rules = Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]
State = Mapping[str, Tensor]

NESTED = ("model_state", "model_dm_state", "model_le_state", "params", "state_dict")
# Types that training scripts store beside tensors. Rebuilding them runs no code from the file; others are refused.
NUMPY_SCALAR = np.float64(0).__reduce__()[0]
HARMLESS: list[Any] = [argparse.Namespace, NUMPY_SCALAR, np.dtype, type(np.dtype("float64")), type(np.dtype("int64"))]
SCHEDULE_TOLERANCE = 1e-6

# The published settings of the latent and of the diffusion, as released: official weights were trained with them.
LATENT = Latent(
    size=256,
    tokens=1,
    features=64,
    blocks=6,
    sharp_batch_norm=True,
    unshuffle=4,
    normalize_input=False,
    pooling="avg",
    encoder_init="default",
    gain="k",
    fusion_init_std=None,
    fusion_levels=("coarse", "middle", "fine"),
)

DIFFUSION = Diffusion(
    optimizer="adam",
    iterations=315_000,
    lr=1e-4,
    lr_min=1e-6,
    betas=(0.9, 0.999),
    weight_decay=0.0,
    grad_clip=None,
    ema=0.0,
    validate_every=2_625,
    steps=5,
    type="dual",
    start="blur",
    alpha_schedule="linear",
    alpha_start=1.0,
    alpha_end=2.0,
    beta_schedule="linear",
    beta_start=0.0,
    beta_end=0.02,
    noise_rule="official",
    fixed_terminal_noise=None,
    first_step="released",
    eta=0.0,
    estimator_layers=6,
    estimator_init_std=None,
    condition_init="scratch",
    standardize=False,
    standardize_crops=320,
    loss="charbonnier",
    supervision="final",
)

ENCODER: Rules = (
    (r"E\.0\.", "stem.0."),
    (r"E\.([2-7])\.body\.0\.", lambda m: f"blocks.{int(m[1]) - 2}.conv1."),
    (r"E\.([2-7])\.body\.1\.", lambda m: f"blocks.{int(m[1]) - 2}.norm1."),
    (r"E\.([2-7])\.body\.4\.", lambda m: f"blocks.{int(m[1]) - 2}.norm2."),
    (r"E\.([2-7])\.body\.[23]\.", lambda m: f"blocks.{int(m[1]) - 2}.conv2."),  # 3 with batch normalisation
    (r"E\.8\.", "expand.0.0."),
    (r"E\.10\.", "expand.1.0."),
    (r"E\.12\.", "expand.2.0."),
)
PRIOR: Rules = (
    (r"^lcr_model\.", "residual."),
    (r"^noise_model\.", "noise."),
    (r"\.resmlp\.0\.(weight|bias)$", r".stack.0.\1"),
    (r"\.resmlp\.(\d+)\.resmlp\.0\.", lambda m: f".stack.{2 * int(m[1]) - 2}."),
    (r"\.resmlp\.(\d+)\.stack\.0\.", lambda m: f".stack.{2 * int(m[1]) - 2}."),
    (r"^condition_encoder\.", "encoder."),
    *ENCODER,
)
SCHEDULE = ("alphas", "betas_bar", "time_stamps_list")


class Official(NamedTuple):
    """Loaded modules in evaluation mode: a backbone (with or without prior), a prior generator, a sharp encoder."""

    backbone: nn.Module | None
    prior: PriorGenerator | None
    sharp_encoder: Encoder | None


def load_official(source: Path | str | State, backbone: str) -> Official:
    """The modules whose weights ``source`` holds: a checkpoint file (.pth, .pt, .safetensors), or state dicts.

    A state dict may be plain, nested under one of ``NESTED``, and with or without ``module.`` before its names. Its
    entries identify its module. The backbone is of the published size; it has a prior if the weights have one.
    InputError names what is unknown, missing or of another shape, and refuses a file that would run code.
    """
    names = [n for n in module_names(BACKBONES) if hasattr(load_module("backbone", BACKBONES, n), "OFFICIAL")]
    if backbone not in names:
        raise InputError(f"backbone '{backbone}' has no official checkpoint; known: {', '.join(names)}")
    where = str(source) if isinstance(source, Path | str) else "state dict"
    content = read_checkpoint(Path(source)) if isinstance(source, Path | str) else source
    modules: dict[str, Any] = {"backbone": None, "prior": None, "sharp_encoder": None}
    for state in _state_dicts(content, where):
        if any(name.startswith(("condition_encoder.", "lcr_model.", "noise_model.")) for name in state):
            kind = "prior"
        else:
            kind = "sharp_encoder" if any(re.match(r"E\.\d", name) for name in state) else "backbone"
        if modules[kind] is not None:
            raise InputError(f"{where}: holds two states of a {kind.replace('_', ' ')}; give one")
        modules[kind] = _module(kind, state, backbone, where)
    return Official(**modules)


def read_checkpoint(path: Path) -> Any:
    """The content of a checkpoint file, of which nothing is executed: InputError if it would have to be."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is None:
            raise InputError(f"{path}: not a checkpoint, or one that cannot be read without running its code") from None
        raise InputError(f"{path}: holds {refused[1]}, which only running it would rebuild; refused") from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(f"{path}: not a checkpoint ({str(error).splitlines()[0]})") from None


def _state_dicts(content: Any, where: str) -> list[dict[str, Tensor]]:
    """The state dicts in ``content``, each without ``module.`` before its names."""
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: holds a {type(content).__name__}, should be a state dict or a dict of them")
    nested = [content[name] for name in NESTED if isinstance(content.get(name), Mapping)]
    states = nested or [content]
    for state in states:
        wrong = next((name for name, value in state.items() if not isinstance(value, Tensor)), None)
        if wrong is not None or not state:
            raise InputError(
                f"{where}: no state dict found, neither plain (entry '{wrong}' is no tensor) nor under"
                f" {', '.join(NESTED)}"
            )
    return [{name.removeprefix("module."): value for name, value in state.items()} for state in states]


def _module(kind: str, state: dict[str, Tensor], backbone: str, where: str) -> nn.Module:
    if kind == "prior":
        prior = PriorGenerator(LATENT, diffusion_of(state, where))
        weights = {name: value for name, value in state.items() if name not in SCHEDULE}
        own = {name: value for name, value in prior.state_dict().items() if name.startswith("latent_")}
        return _filled(prior, _renamed(weights | own, PRIOR), where)
    if kind == "sharp_encoder":
        batch_norm = any(name.endswith("running_mean") for name in state)
        return _filled(Encoder(LATENT, batch_norm), _renamed(state, ENCODER), where)
    file = load_module("backbone", BACKBONES, backbone)
    return _filled(build_backbone(file.PAPER, latent_of(state)), _renamed(state, file.OFFICIAL), where)


def latent_of(state: State) -> Latent | None:
    """The latent that a backbone's weights were made for: None without fusion layers."""
    return LATENT if any(re.search(r"\bkv\.weight$", name) for name in state) else None


def diffusion_of(state: State, where: str) -> Diffusion:
    """The diffusion of a prior's stored schedule (the released default without one); InputError if it is another."""
    if not {"alphas", "betas_bar"} <= set(state):
        return DIFFUSION
    alphas, betas_bar = state["alphas"].double().tolist(), state["betas_bar"].double().tolist()
    ours = DIFFUSION.model_copy(update={"steps": len(betas_bar), "alpha_start": alphas[0], "alpha_end": alphas[-1]})
    schedule = PriorGenerator(LATENT, ours).schedule
    expected = [*schedule.alpha, *schedule.beta_bar[1:]]
    given = [*alphas, *betas_bar]
    if (
        len(given) != len(expected)
        or max(abs(a - b) for a, b in zip(given, expected, strict=True)) > SCHEDULE_TOLERANCE
    ):
        raise InputError(f"{where}: alphas and betas_bar are not the official linear ones (beta from 0 to 0.02)")
    return ours


def _renamed(state: State, rules: Rules) -> dict[str, tuple[str, Tensor]]:
    """Our name of each entry, with the official name and the value."""
    renamed = {}
    for official, value in state.items():
        name = official
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = official, value
    return renamed


def _filled(module: nn.Module, state: dict[str, tuple[str, Tensor]], where: str) -> nn.Module:
    """``module`` with the weights of ``state``, whose shapes may have further axes of length 1."""
    ours = module.state_dict()
    unknown = [official for name, (official, _) in state.items() if name not in ours]
    missing = sorted(ours.keys() - state.keys())
    for what, names in (("unknown", unknown), ("missing", missing)):
        if names:
            raise InputError(f"{where}: {len(names)} entries are {what}, such as {names[0]}")
    for name, (official, value) in state.items():
        if value.squeeze().shape != ours[name].squeeze().shape:
            raise InputError(f"{where}: {official} has shape {tuple(value.shape)}, should be {tuple(ours[name].shape)}")
    module.load_state_dict({name: value.reshape(ours[name].shape) for name, (_, value) in state.items()})
    return module.requires_grad_(False).eval()
