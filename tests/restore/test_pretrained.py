"""The model that comes with the package: the one that its card describes, which helps on blur it has not seen."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import blurdm as package
from benchmarks import before_after, pretrained
from benchmarks.latents import main as latents_main
from benchmarks.latents import probe
from blurdm.core.config_io import load_config
from blurdm.core.errors import InputError
from blurdm.core.key import identity
from blurdm.core.prior import LATENTS, NO_EPS, NO_NOISE, OWN
from blurdm.core.store import file_digest
from blurdm.data.blur.camera_path import Motion
from blurdm.data.blur.formation import expose
from blurdm.data.pairs import read_image, write_image
from blurdm.data.photos.dead_leaves import dead_leaves
from blurdm.models.fusion import Fusion
from blurdm.models.network import Network
from blurdm.restore.models import INSTALLED, find_model, installed
from blurdm.stages import test_images as pairs
from tests.support.tiny import REPOSITORY, Told

FILE = INSTALLED / "photos.safetensors"
FIGURES = json.loads((INSTALLED / "photos.json").read_text())
CARD = (INSTALLED / "photos.md").read_text()
# Photos that packages have are training photos; those kept for test have to be fetched: their figures are on the card.
PHOTOS = {"chelsea": "skimage/data/chelsea.png", "coffee": "skimage/data/coffee.png"}
HELPS = ("5-10 px", "10-15 px")


def read_photo(path: str) -> np.ndarray:
    """A photo of an installed package."""
    spec = find_spec("skimage")
    assert spec is not None and spec.submodule_search_locations
    return read_image(Path(spec.submodule_search_locations[0]).parent / path)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a / 255.0 - b / 255.0) ** 2)))


def test_file_figures_and_card_belong_together() -> None:
    assert FILE.stat().st_size < 8e6 and installed() == ["photos"]
    assert file_digest(FILE) == FIGURES["file_sha256"] and FIGURES["file_sha256"] in CARD
    model = find_model(None)
    assert model.digest == FIGURES["model_digest"] and model.description["stage"] == FIGURES["arm"]
    config = load_config(REPOSITORY / FIGURES["preset"])
    sections = model.description["sections"]
    assert all(value == identity(getattr(config, name)) for name, value in sections.items())
    assert config.synthesis is not None and set(FIGURES["test_photos"]) == set(config.synthesis.test_photos)


def test_the_card_has_every_part() -> None:
    """Its figures are compared by tests/docs/test_claims.py."""
    for part in ("## Data", "## Licence", "## Recipe", "## Measured", "## What it cannot do", "benchmarks.pretrained"):
        assert part in CARD
    bands, metrics = FIGURES["by_length"], FIGURES["metrics"]
    assert all(bands[name]["psnr"]["difference"][1] > 0 for name in HELPS), "blur that the card says it helps with"
    assert metrics["psnr"]["difference"][1] > 0 > metrics["lpips"]["difference"][2]
    for arms in FIGURES["long_blur"].values():
        gain = arms["restored"]["difference"][0]
        assert max(arms["at full size"]["difference"][0], 0.25) < gain, "from copies on"
        assert gain < bands["10-15 px"]["psnr"]["difference"][0], "the card says that it gains less there"
    assert 9 > len(FIGURES["with_faults"]) == len(FIGURES["sharp_with_faults"]) > 2


def test_no_arm_with_a_prior_is_shown_to_be_better() -> None:
    arms = json.loads((INSTALLED / "arms.json").read_text())["arms"]
    oracle = arms.pop("oracle")["difference"]
    with_prior = {name: arm for name, arm in arms.items() if "prior_psnr_own" in arm}
    assert len(with_prior) == 4 and oracle[1] > 0, "there was something to gain"
    assert all(arm["difference"][1] < 0 < arm["difference"][2] for arm in with_prior.values())
    assert arms["BlurDM"]["prior_psnr_own"] <= arms["BlurDM"]["prior_psnr_mean"]


@pytest.fixture
def exposed(tmp_path: Path) -> list[pairs.TestImage]:
    """A blurred and a sharp window of each of two photos."""
    tests = []
    for number, (name, path) in enumerate(PHOTOS.items()):
        pair = expose(read_photo(path), np.random.default_rng(number), 5.0, Motion("shake"), (96, 112))
        tests.append(pairs.TestImage(name, "0", tmp_path / f"{name}_blur.png", tmp_path / f"{name}_sharp.png"))
        write_image(tests[-1].blur, pair.blur)
        write_image(tests[-1].sharp, pair.sharp)
    return tests


def test_a_latent_that_matters_is_measured_and_a_backbone_alone_has_none(exposed: list[pairs.TestImage]) -> None:
    config = load_config(REPOSITORY / "params.yaml")
    network = Network("joint", config.backbone, config.latent, config.diffusion).eval()
    for module in network.modules():
        if isinstance(module, Fusion):
            module.linear.weight.data *= 20
    report = probe(network, exposed)
    still = {LATENTS[name] for name in (OWN, NO_NOISE, NO_EPS)}  # an untrained process hardly changes a latent
    assert min(entry["largest_change"] for name, entry in report.items() if name not in still) > 2
    with pytest.raises(InputError, match="a model without a prior has no latent"):
        probe(Network("baseline", config.backbone, None, None), exposed)


def test_pairs_that_are_not_there_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert latents_main(["--model", "photos", "--pairs", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "manifest.csv: missing; make the pairs with: blurdm data pairs" in line


def test_it_restores_without_a_model_and_helps_with_blur_it_has_not_seen(
    blurdm: Callable[..., Told], tmp_path: Path
) -> None:
    hand = Motion("hand", speed_variation=0.6, reference="mean")
    sharp = {name: read_photo(path) for name, path in PHOTOS.items()}
    sharp["leaves"] = dead_leaves(np.random.default_rng(1))
    gains = []
    for number, (name, pixels) in enumerate(sharp.items()):
        rng = np.random.default_rng(number)
        for length in (5.0, 8.0, 12.0):
            pair = expose(pixels, rng, length, hand, (160, 192))
            file = tmp_path / f"{name}{length:.0f}.png"
            write_image(file, pair.blur)
            told = blurdm("deblur", file)
            assert told.code == 0 and "restoring with model pretrained/photos" in told.err
            restored = read_image(tmp_path / "restored" / file.name)
            gains.append(psnr(restored, pair.sharp) - psnr(pair.blur, pair.sharp))
    assert np.mean(gains) > 0.8 and min(gains) > -0.5, gains


def test_pictures_are_of_photos_from_the_best_to_the_two_worst() -> None:
    gains = FIGURES["gain_by_photo"]
    scenes = before_after.chosen(gains)
    assert len(set(scenes)) == len(scenes) == 7
    ordered = [gains[scene] for scene in scenes]
    assert ordered == sorted(gains.values(), reverse=True)[:1] + ordered[1:5] + sorted(gains.values())[1::-1]
    pixels = np.full((*before_after.WINDOW, 3), 200, np.uint8)
    strip = before_after.row(pretrained.Tested("a_b", "0", 7.0, pixels - np.uint8(100), pixels), pixels - np.uint8(1))
    assert strip[-1, ::255].mean(axis=1).tolist()[:3] == [100, 100, 199] and (strip[-1, -1] == 200).all()


def test_python_takes_it_by_itself() -> None:
    assert package.load().model.digest == package.load("photos").model.digest


def test_a_folder_that_has_the_name_of_the_model_is_not_taken_for_it(
    blurdm: Callable[..., Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "photos" / "a.png", read_photo(PHOTOS["coffee"])[:40, :50])
    monkeypatch.chdir(tmp_path)
    for model in ([], ["--model", "photos"]):
        told = blurdm("deblur", "photos", *model)
        assert told.code == 0 and "restoring with model pretrained/photos" in told.err
