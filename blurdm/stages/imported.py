"""Published weights as a run folder of ours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from blurdm.core.errors import InputError
from blurdm.core.runs import Resources, Run
from blurdm.core.store import file_digest, finished, provenance, write_json
from blurdm.models.official import LATENT, Official, load_official
from blurdm.training.checkpoint import save_weights


def import_official(paths: Sequence[Path], backbone: str, root: Path, tlc: bool = True) -> tuple[Path, str]:
    """The run folder below ``root`` made of the checkpoints ``paths``, which together hold one network, and its title.

    It is a stage-3 run if they hold a backbone and a prior generator, a stage-1 run with a sharp encoder, a baseline if
    the backbone has no prior. InputError if they hold none of these, or anything twice.
    """
    parts = [load_official(path, backbone, tlc) for path in paths]
    kind, prior, official = _network(parts, ", ".join(map(str, paths)))
    assert official.published is not None
    sections: dict[str, Any] = {"backbone": official.published.backbone}
    if kind != "baseline":
        sections["latent"] = LATENT
    if kind == "joint":
        assert official.prior is not None
        sections["diffusion"] = official.prior.diffusion
    inputs = {f"official {number}": file_digest(path) for number, path in enumerate(paths)}
    run = Run(kind, sections, inputs, code="")  # it depends on the checkpoint alone
    folder = run.folder(root)
    if finished(folder) is None:
        write_json(folder / "config.json", run.description)
        write_json(folder / "provenance.json", provenance(Resources()) | {"official": [str(path) for path in paths]})
        modules = {"backbone": official.backbone, "prior": prior}
        digest = save_weights(folder, nn.ModuleDict({name: part for name, part in modules.items() if part is not None}))
        result = {"stage": kind, "key": run.key, "seconds": 0.0, "metrics": {}, "iterations": None}
        write_json(folder / "result.json", result | {"weights_sha256": digest})
    return folder, official.published.title


def _network(parts: Sequence[Official], where: str) -> tuple[str, nn.Module | None, Official]:
    """Which stage's network the ``parts`` make up, what is its prior, and all that there is."""
    merged: dict[str, Any] = {}
    for name in Official._fields:
        values = [value for part in parts if (value := getattr(part, name)) is not None]
        if len(values) > 1:
            raise InputError(f"{where}: hold {len(values)} states of a {name.replace('_', ' ')}; give one")
        merged[name] = values[0] if values else None
    official = Official(**merged)
    if official.backbone is None:
        raise InputError(f"{where}: no backbone in there; give the checkpoint of the network as well")
    if not getattr(official.backbone, "has_prior", False):
        return "baseline", None, official
    if official.prior is not None:
        return "joint", official.prior, official
    encoder = official.sharp_encoder
    if encoder is not None and any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules()):
        return "pretrain", encoder, official
    raise InputError(f"{where}: a backbone with prior but no prior generator; give its checkpoint as well")
