"""Weights that were published, as our modules: network recognised, entries renamed, shapes checked, nothing executed.

What is known of each network's files is in ``blurdm/models/published``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from blurdm.core.config import Diffusion, Latent
from blurdm.core.errors import InputError
from blurdm.core.registry import load_module, module_names, require
from blurdm.diffusion.schedules import make_schedule
from blurdm.models.build import build_backbone
from blurdm.models.encoder import Encoder
from blurdm.models.entries import PublishedNetwork, Rules, State
from blurdm.models.prior import PriorGenerator
from blurdm.models.unpickle import read_tensors
from blurdm.models.weights import check_kind, fill, read_weights, without_memory

PUBLISHED = "blurdm.models.published"
AUTO = "auto"
RELEASED = ("model_state", "model_dm_state", "model_le_state")  # as BlurDM's code saves them
NESTED = (*RELEASED, "model", "params", "state_dict")
MOST_ENTRIES = 10_000
LONGEST_NAME = 200
KINDS = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}
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
    """Loaded modules in evaluation mode: a backbone (with or without prior), a prior generator, a sharp encoder.

    ``published``: what the backbone was recognised as, with its size and the conventions of its evaluation.
    """

    backbone: nn.Module | None
    prior: PriorGenerator | None
    sharp_encoder: Encoder | None
    published: PublishedNetwork | None = None


def load_official(source: Path | str | Mapping[str, Any], backbone: str = AUTO, tlc: bool = True) -> Official:
    """The modules whose weights ``source`` holds: a checkpoint file (.pth, .pt, .safetensors), or state dicts.

    A state dict may be plain, nested under one of ``NESTED``, and with or without ``module.`` before its names. Its
    entries identify its module, its size, and whether it has a prior. Without ``tlc``, means of NAFNet are over the
    whole image. InputError names what is unknown, missing or of another shape, and refuses a file that would run code.
    """
    names = module_names(PUBLISHED)
    require("published backbone", backbone, (AUTO, *names))
    where = str(source) if isinstance(source, Path | str) else "state dict"
    content = read_checkpoint(Path(source)) if isinstance(source, Path | str) else source
    modules: dict[str, Any] = {"backbone": None, "prior": None, "sharp_encoder": None}
    published: PublishedNetwork | None = None
    for state, released in _state_dicts(content, where):
        if any(name.startswith(("condition_encoder.", "lcr_model.", "noise_model.")) for name in state):
            kind = "prior"
        else:
            kind = "sharp_encoder" if any(re.match(r"E\.\d", name) for name in state) else "backbone"
        if modules[kind] is not None:
            raise InputError(f"{where}: holds two states of a {kind.replace('_', ' ')}; give one")
        if kind == "backbone":
            published = recognise(state, released, names if backbone == AUTO else [backbone], where)
            if not tlc:
                published = without_tlc(published)
            modules[kind] = _backbone(state, published, where)
        else:
            modules[kind] = _prior_part(kind, state, where)
    return Official(**modules, published=published)


def recognise(state: State, released: bool, names: Sequence[str], where: str) -> PublishedNetwork:
    """Which of the published networks ``names`` the ``state`` is of; InputError."""
    for name in names:
        known = load_module("published network", PUBLISHED, name)
        if known.MARK in state:
            try:
                published: PublishedNetwork = known.published(state, latent_of(state) is not None, released)
            except ValidationError:
                raise InputError(f"{where}: looks like {name}, but has no size that it can have") from None
            return published
    entry = next(iter(state))
    raise InputError(f"{where}: entries such as '{entry}' are of no published {' or '.join(names)}")


def read_checkpoint(path: Path) -> Any:
    """The content of a checkpoint file, of which nothing is executed: InputError if it would have to be."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return read_weights(path) if path.suffix == ".safetensors" else read_tensors(path, str(path))


def without_tlc(published: PublishedNetwork) -> PublishedNetwork:
    """The same network with means over the whole image."""
    settings = published.backbone
    if settings.inference is None:
        return published
    inference = settings.inference.model_copy(update={"pooling_window": None})
    return published._replace(backbone=settings.model_copy(update={"inference": inference}))


def _state_dicts(content: Any, where: str) -> list[tuple[dict[str, Tensor], bool]]:
    """The state dicts in ``content``, each without ``module.`` before its names, and whether BlurDM's code saved it."""
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: holds a {type(content).__name__}, should be a state dict or a dict of them")
    nested = [(content[name], name in RELEASED) for name in NESTED if isinstance(content.get(name), Mapping)]
    states = nested or [(content, False)]
    for state, _ in states:
        if len(state) > MOST_ENTRIES:
            raise InputError(
                f"{where}: holds {len(state)} entries; the official networks have fewer than {MOST_ENTRIES}"
            )
        wrong = [name for name, value in state.items() if not _is_entry(name, value)]
        if wrong or not state:
            plain = f"entry '{wrong[0]}' is no tensor" if wrong else "it is empty"
            raise InputError(f"{where}: no state dict found, neither plain ({plain}) nor under {', '.join(NESTED)}")
    return [({n.removeprefix("module."): value for n, value in state.items()}, released) for state, released in states]


def _is_entry(name: Any, value: Any) -> bool:
    """Whether it is a name and a tensor of plain values."""
    named = isinstance(name, str) and len(name) <= LONGEST_NAME
    return named and isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta


def _backbone(state: State, published: PublishedNetwork, where: str) -> nn.Module:
    return _filled(lambda: build_backbone(published.backbone, latent_of(state)), state, published.rules, where)


def _prior_part(kind: str, state: dict[str, Tensor], where: str) -> nn.Module:
    if kind == "prior":
        diffusion = diffusion_of(state, where)
        weights = {name: value for name, value in state.items() if name not in SCHEDULE}
        own = {"latent_mean": torch.zeros(LATENT.size), "latent_std": torch.ones(LATENT.size)}
        return _filled(lambda: PriorGenerator(LATENT, diffusion), weights | own, PRIOR, where)
    batch_norm = any(name.endswith("running_mean") for name in state)
    return _filled(lambda: Encoder(LATENT, batch_norm), state, ENCODER, where)


def latent_of(state: State) -> Latent | None:
    """The latent that a backbone's weights were made for: None without fusion layers."""
    return LATENT if any(re.search(r"\bkv\.weight$", name) for name in state) else None


def diffusion_of(state: State, where: str) -> Diffusion:
    """The diffusion of a prior's stored schedule (the released default without one); InputError if it is another."""
    if not {"alphas", "betas_bar"} <= set(state):
        return DIFFUSION
    wrong = InputError(f"{where}: alphas and betas_bar are not the official linear ones (beta from 0 to 0.02)")
    tables = state["alphas"], state["betas_bar"]
    if any(table.ndim != 1 or table.dtype not in KINDS or not 0 < len(table) <= MOST_ENTRIES for table in tables):
        raise wrong
    alphas, betas_bar = (table.double().tolist() for table in tables)
    changes = {"steps": len(betas_bar), "alpha_start": alphas[0], "alpha_end": alphas[-1]}
    try:
        ours = Diffusion.model_validate(DIFFUSION.model_dump() | changes)
    except ValidationError:
        raise wrong from None
    schedule = make_schedule(ours)
    expected = [*schedule.alpha, *schedule.beta_bar[1:]]
    given = [*alphas, *betas_bar]
    if len(given) != len(expected) or not all(
        abs(a - b) <= SCHEDULE_TOLERANCE for a, b in zip(given, expected, strict=True)
    ):
        raise wrong
    return ours


def _filled(build: Callable[[], nn.Module], state: State, rules: Rules, where: str) -> nn.Module:
    """The module with the weights of ``state``, renamed by ``rules``; shapes may have further axes of length 1."""
    with without_memory():
        ours = build().state_dict()
    renamed: dict[str, tuple[str, Tensor]] = {}
    for official, value in state.items():
        name = official
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        if name in renamed:
            raise InputError(f"{where}: {official} and {renamed[name][0]} are the same entry; give one")
        renamed[name] = official, value
    unknown = [official for name, (official, _) in renamed.items() if name not in ours]
    missing = sorted(ours.keys() - renamed.keys())
    for what, names in (("unknown", unknown), ("missing", missing)):
        if names:
            raise InputError(f"{where}: {len(names)} entries are {what}, such as {names[0]}")
    for name, (official, value) in renamed.items():
        check_kind(official, KINDS.get(value.dtype, str(value.dtype)), ours[name], where)
        if [n for n in value.shape if n != 1] != [n for n in ours[name].shape if n != 1]:
            raise InputError(f"{where}: {official} has shape {tuple(value.shape)}, should be {tuple(ours[name].shape)}")
    weights = {name: value.reshape(ours[name].shape) for name, (_, value) in renamed.items()}
    return fill(build(), weights, where)
