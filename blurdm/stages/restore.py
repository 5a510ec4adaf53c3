"""Stage ``restore``: a model run over the test images, as 8-bit PNGs; and what restoring costs."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blurdm.core.arms import ARMS, Arm, RestoreSections, arm_of, arms_of
from blurdm.core.config import Restore
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.progress import OnProgress, Progress
from blurdm.core.runs import Resources
from blurdm.core.store import file_digest, read_json
from blurdm.metrics.psnr import quantize
from blurdm.models.cost import measure_cost
from blurdm.models.network import Network
from blurdm.models.prior import PriorGenerator
from blurdm.restore.models import load_network
from blurdm.restore.tensors import image_noise, read_tensor, restore_tensor, write_tensor
from blurdm.stages.test_images import TestImage, foreign, samples, test_images
from blurdm.stages.trajectory import Steps, follow, write_steps


def restore(
    sections: RestoreSections, inputs: Mapping[str, Path], out: Path, resources: Resources, on_progress: OnProgress
) -> dict[str, Any]:
    """Restore the test images as every arm of the model into images/<arm>/<scene>/<name>.png.

    Without a model, samples of the blurred and the sharp images are kept there, to be looked at.
    """
    section = sections.restore
    tests = test_images(inputs["prepare"], Path(sections.data.root))
    shown = samples(tests, section.samples_per_scene)
    if "model" not in inputs:
        for test in shown:
            write_tensor(test.file(out / "images", arm_of(None)), read_tensor(test.blur))
            write_tensor(test.file(out / "images", "sharp"), read_tensor(test.sharp))
        return {"metrics": {"restored_images": 0}, "arms": [arm_of(None)], "cost": {}, "iterations": 0}
    network = load_for(inputs["model"], section, resources.device)
    stage = read_json(inputs["model"] / "config.json")["stage"]
    with_foreign = section.foreign and len({test.scene for test in tests}) > 1
    arms = {name: arm for name, arm in arms_of(stage).items() if with_foreign or arm.latent != "foreign"}
    kept = {"all": tests, "samples": shown, "none": []}[section.keep]
    for number, test in enumerate(kept):
        if resources.stop():
            raise StopRequested(f"stopped after {number} of {len(kept)} images")
        for name, arm in arms.items():
            file = test.file(out / "images", name)
            if not file.is_file():  # each is written whole, so that a killed run continues with the next
                write_tensor(file, restored_image(network, arm, test, tests, section, resources.device))
        on_progress(Progress(number + 1, len(kept), unit="image"))
    _follow(network, arm_of(stage), shown, section.noise_seed, out, resources)
    files = [test.file(out / "images", name) for test in kept for name in arms]
    return {
        "metrics": {"restored_images": len(files)},
        "arms": list(arms),
        "images_sha256": hashlib.sha256("".join(map(file_digest, files)).encode()).hexdigest(),
        "cost": {name: measure_cost(network, resources.device) for name, arm in arms.items() if arm.latent == "own"},
        "iterations": read_json(inputs["model"] / "result.json")["iterations"],
    }


def load_for(model: Path, section: Restore, device: str) -> Network:
    """The model; where it has a diffusion, it samples as ``section.steps`` and ``section.eta`` say."""
    network = load_network(model, device)
    if isinstance(network.prior, PriorGenerator):
        network.prior.resample(section.steps, section.eta)
    return network


def restored_image(
    network: Network, arm: Arm, test: TestImage, tests: list[TestImage], section: Restore, device: str
) -> Tensor:
    """``test`` as ``arm`` restores it, (1, 3, H, W) in [0, 1], rounded to 8 bits."""
    blur = read_tensor(test.blur, device)
    source = test if arm.latent == "own" else foreign(test, tests, section.noise_seed)
    latent = _latent(network, source, section.noise_seed, device)
    own_latents = None
    if arm.latent == "own" and section.tile_latent == "tile":
        own_latents = read_tensor(test.sharp, device), image_noise(network, section.noise_seed, test.identity)
    return quantize(restore_tensor(network, blur, latent, section.tile, own_latents))


@torch.no_grad()
def _latent(network: Network, test: TestImage, noise_seed: int, device: str) -> Tensor | None:
    """The latent of ``test``'s photo; only the oracle is shown its sharp image."""
    if network.prior is None:
        return None
    sharp = read_tensor(test.sharp, device) if network.kind == "pretrain" else None
    return network.latent(read_tensor(test.blur, device), sharp, image_noise(network, noise_seed, test.identity))


def _follow(
    network: Network, arm: str, tests: list[TestImage], noise_seed: int, out: Path, resources: Resources
) -> None:
    """The reverse process of ``tests``, where there is one, as trajectory.csv and trajectory.safetensors."""
    if not isinstance(network.prior, PriorGenerator) or not tests:
        return
    followed: list[Steps] = []
    for test in tests:
        if resources.stop():
            raise StopRequested(f"stopped after the trajectories of {len(followed)} of {len(tests)} images")
        blur, sharp = read_tensor(test.blur, resources.device), read_tensor(test.sharp, resources.device)
        noise = image_noise(network, noise_seed, test.identity)
        assert noise is not None
        followed.append(follow(network, blur, sharp, noise, (test.scene, test.name)))
    write_steps(out, arm, followed)


class Restorations:
    """The restored test images of a finished ``restore`` run: read where they were kept, else restored again."""

    def __init__(self, folder: Path, tests: list[TestImage], model: Path | None, section: Restore, device: str) -> None:
        self.arms: list[str] = read_json(folder / "result.json")["arms"]
        self._folder, self._tests, self._device = folder / "images", tests, device
        self._model, self._section = model, section
        self._network: Network | None = None

    def image(self, test: TestImage, arm: str) -> Tensor:
        """(1, 3, H, W) in [0, 1], rounded to 8 bits; of the blurred input's arm, the blurred image itself."""
        file = test.file(self._folder, arm)
        if file.is_file():
            return read_tensor(file, self._device)
        if self._model is None:
            if arm != arm_of(None):
                raise InputError(f"{file}: no such file, and no network makes it; delete the run and score it again")
            return quantize(read_tensor(test.blur, self._device))
        self._network = self._network or load_for(self._model, self._section, self._device)
        return restored_image(self._network, ARMS[arm], test, self._tests, self._section, self._device)
