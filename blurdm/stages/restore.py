"""Stage ``restore``: a model run over the test images, as 8-bit PNGs; and what restoring costs."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blurdm.core.ahead import helpers
from blurdm.core.arms import ARMS, RestoreSections, arm_of, arms_of
from blurdm.core.config import PLAIN, Restore
from blurdm.core.errors import InputError, StopRequested
from blurdm.core.progress import OnProgress, Progress
from blurdm.core.runs import Resources
from blurdm.core.store import file_digest, read_json
from blurdm.metrics.psnr import quantize
from blurdm.models.cost import measure_cost
from blurdm.models.network import Network
from blurdm.models.precision import matmul_precision
from blurdm.models.prior import PriorGenerator
from blurdm.restore.memory import MemoryCosts, gpu_room
from blurdm.restore.models import load_network
from blurdm.restore.tensors import (
    Decoded,
    ImageWriter,
    decoded_ahead,
    image_noise,
    read_tensor,
    restore_tensor,
    to_image,
    write_tensor,
)
from blurdm.restore.tiling import joined
from blurdm.stages.test_images import TestImage, foreign, of_one_size, samples, test_images
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
    stage = read_json(inputs["model"] / "config.json")["stage"]
    with_foreign = section.foreign and len({test.scene for test in tests}) > 1
    arms = {name: arm for name, arm in arms_of(stage).items() if with_foreign or arm.latent != "foreign"}
    kept = {"all": tests, "samples": shown, "none": []}[section.keep]
    with matmul_precision(PLAIN, resources.device):
        network = load_for(inputs["model"], section, resources.device)
        restoring = Restoring(network, tests, section, resources.device)
        _keep(restoring, list(arms), kept, out / "images", resources, on_progress)
        _follow(network, arm_of(stage), shown, section.noise_seed, out, resources)
        own = [name for name, arm in arms.items() if arm.latent == "own"]
        cost = {name: measure_cost(network, resources.device) for name in own}
    files = [test.file(out / "images", name) for test in kept for name in arms]
    return {
        "metrics": {"restored_images": len(files)},
        "arms": list(arms),
        "images_sha256": hashlib.sha256("".join(map(file_digest, files)).encode()).hexdigest(),
        "cost": cost,
        "iterations": read_json(inputs["model"] / "result.json")["iterations"],
    }


def load_for(model: Path, section: Restore, device: str) -> Network:
    """The model; where it has a diffusion, it samples as ``section.steps`` and ``section.eta`` say."""
    network = load_network(model, device)
    if isinstance(network.prior, PriorGenerator):
        network.prior.resample(section.steps, section.eta)
    return network


def inputs_of(test: TestImage, arm: str, tests: list[TestImage], noise_seed: int) -> Iterator[Path]:
    """The files that ``test``, as ``arm`` restores it, is made of; only the oracle sees sharp images."""
    yield test.blur
    source = latent_source(test, arm, tests, noise_seed)
    yield source.blur
    if ARMS[arm].stage == "pretrain":
        yield source.sharp


def latent_source(test: TestImage, arm: str, tests: list[TestImage], noise_seed: int) -> TestImage:
    """The image whose latent ``arm`` restores ``test`` with."""
    return test if ARMS[arm].latent == "own" else foreign(test, tests, noise_seed)


class Restoring:
    """Restores ``tests`` by a network: one by one on a CPU, on a GPU as many at once as its memory takes."""

    def __init__(self, network: Network, tests: list[TestImage], section: Restore, device: str) -> None:
        self.network, self._tests, self._section, self._device = network, tests, section, device
        self._room = gpu_room(device) if device.startswith("cuda") else None
        self._costs = None if self._room is None else MemoryCosts(network)

    def files(self, test: TestImage, arm: str) -> Iterator[Path]:
        """The files that ``images`` needs decoded for ``test``."""
        return inputs_of(test, arm, self._tests, self._section.noise_seed)

    def images(self, tests: Sequence[TestImage], arm: str, decoded: Decoded) -> Tensor:
        """``tests`` of one size, (B, 3, H, W) in [0, 1], rounded to 8 bits."""
        count = 1 if self._section.tile else self._at_once(*decoded[tests[0].blur].shape[:2])
        parts = [tests[start : start + count] for start in range(0, len(tests), count)]
        return joined([self._together(part, arm, decoded) for part in parts])

    def _at_once(self, height: int, width: int) -> int:
        if self._costs is None or self._room is None:
            return 1
        return self._costs.at_once(self._room, height, width)

    def _together(self, tests: Sequence[TestImage], arm: str, decoded: Decoded) -> Tensor:
        section, device = self._section, self._device
        blur = joined([to_image(decoded[test.blur], device) for test in tests])
        sources = [latent_source(test, arm, self._tests, section.noise_seed) for test in tests]
        latent = self._latents(sources, decoded)
        own = None
        if ARMS[arm].latent == "own" and section.tile_latent == "tile":
            noise = image_noise(self.network, section.noise_seed, *(test.identity for test in tests))
            own = self._sharp(tests, decoded), noise
        count = self._at_once(section.tile, section.tile) if section.tile else 1
        return quantize(restore_tensor(self.network, blur, latent, section.tile, own, count))

    @torch.no_grad()
    def _latents(self, sources: Sequence[TestImage], decoded: Decoded) -> Tensor | None:
        """The latents of the photos ``sources``, which may have several sizes."""
        if self.network.prior is None:
            return None
        if len({decoded[source.blur].shape for source in sources}) > 1:
            alone = [self._latents([source], decoded) for source in sources]
            return torch.cat([latent for latent in alone if latent is not None])
        blur = joined([to_image(decoded[source.blur], self._device) for source in sources])
        noise = image_noise(self.network, self._section.noise_seed, *(source.identity for source in sources))
        return self.network.latent(blur, self._sharp(sources, decoded), noise)

    def _sharp(self, tests: Sequence[TestImage], decoded: Decoded) -> Tensor | None:
        if self.network.kind != "pretrain":
            return None
        return joined([to_image(decoded[test.sharp], self._device) for test in tests])


def _keep(
    restoring: Restoring,
    arms: Sequence[str],
    kept: list[TestImage],
    folder: Path,
    resources: Resources,
    on_progress: OnProgress,
) -> None:
    """Restore what is not there yet: each file is written whole, so that a killed run continues with the next."""
    threads = helpers(resources.device, resources.threads)
    left = {test: [arm for arm in arms if not test.file(folder, arm).is_file()] for test in kept}
    todo = [test for test in kept if left[test]]
    done = len(kept) - len(todo)

    def files(test: TestImage) -> Iterator[Path]:
        for arm in left[test]:
            yield from restoring.files(test, arm)

    with ImageWriter(threads) as writer:
        for group, decoded in of_one_size(todo, files, lambda test: test.blur, resources):
            if resources.stop():
                raise StopRequested(f"stopped after {done} of {len(kept)} images")
            for arm in arms:
                asked = [test for test in group if arm in left[test]]
                for test, image in zip(asked, restoring.images(asked, arm, decoded).split(1), strict=True):
                    writer.write(test.file(folder, arm), image)
            done += len(group)
            on_progress(Progress(done, len(kept), unit="image"))


def _follow(
    network: Network, arm: str, tests: list[TestImage], noise_seed: int, out: Path, resources: Resources
) -> None:
    """The reverse process of ``tests``, where there is one, as trajectory.csv and trajectory.safetensors."""
    if not isinstance(network.prior, PriorGenerator) or not tests:
        return
    device, followed = resources.device, list[Steps]()
    for test, decoded in decoded_ahead(tests, lambda test: (test.blur, test.sharp), device, 1):
        if resources.stop():
            raise StopRequested(f"stopped after the trajectories of {len(followed)} of {len(tests)} images")
        blur, sharp = (to_image(decoded[file], device) for file in (test.blur, test.sharp))
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
        self._restoring: Restoring | None = None

    def files(self, test: TestImage, arm: str) -> Iterator[Path]:
        """The files that ``images`` needs decoded for ``test``."""
        file = test.file(self._folder, arm)
        if file.is_file():
            yield file
        elif self._model is not None:
            yield from inputs_of(test, arm, self._tests, self._section.noise_seed)
        elif arm == arm_of(None):
            yield test.blur
        else:
            raise InputError(f"{file}: no such file, and no network makes it; delete the run and score it again")

    def images(self, tests: Sequence[TestImage], arm: str, decoded: Decoded) -> Tensor:
        """``tests`` of one size, (B, 3, H, W) in [0, 1], rounded to 8 bits; of the blurred input's arm, the blurred
        images themselves.
        """
        kept = {test: decoded[file] for test in tests if (file := test.file(self._folder, arm)) in decoded}
        images = {test: to_image(pixels, self._device) for test, pixels in kept.items()}
        left = [test for test in tests if test not in kept]
        if left and self._model is None:
            images |= {test: quantize(to_image(decoded[test.blur], self._device)) for test in left}
        elif left:
            images |= zip(left, self._again(left, arm, decoded).split(1), strict=True)
        return joined([images[test] for test in tests])

    def _again(self, tests: Sequence[TestImage], arm: str, decoded: Decoded) -> Tensor:
        if self._restoring is None:
            assert self._model is not None
            network = load_for(self._model, self._section, self._device)
            self._restoring = Restoring(network, self._tests, self._section, self._device)
        return self._restoring.images(tests, arm, decoded)
