"""docs/own_data.md, command by command, in a repository with 200 images in plain folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from blurdm.core.config_io import read_yaml
from blurdm.data.pairs import read_image, write_image
from tests.support.clones import attempt, call, repository
from tests.support.doc_commands import commands
from tests.support.tiny import REPOSITORY, TEST, TRAIN, write_crop

PRESET = Path("experiments/presets/folders.yaml")
SCENES = {"train": 10, "test": 5}
PAIRS = {"train": 8, "test": 4}  # of a scene
SIZE = 48


def short(tree: dict[str, Any]) -> dict[str, Any]:
    """The preset with a few steps of one seed, on crops that fit the images, and metrics without weights."""
    tree["seeds"] = [0]
    tree["data"] |= {"crop": 32, "val_images": 1}
    tree["measure"]["metrics"] = ["psnr", "ssim"]
    tree["diffusion"]["standardize_crops"] = 8
    for section in ("baseline", "direct", "pretrain", "diffusion", "joint"):
        phases = tree[section]["iterations"]
        tree[section] |= {"iterations": [4, 2] if isinstance(phases, list) else 4, "validate_every": 2}
    for section in ("baseline", "direct"):
        tree[section]["iterations"] = [4, 4]
    return tree


def write_pairs(root: Path, photos: Path) -> None:
    """Crops of photos, and their means over a shift of 2 to 7 px."""
    rng = np.random.default_rng(0)
    for split, stems in (("train", TRAIN), ("test", TEST)):
        for scene in range(SCENES[split]):
            stem = stems[scene % len(stems)]
            write_crop(stem, photos)
            photo = read_image(photos / f"{stem}.png").astype(np.float32)
            for number in range(PAIRS[split]):
                length = int(rng.integers(2, 8))
                top, left = (int(rng.integers(0, extent - SIZE - 8)) for extent in photo.shape[:2])
                moved = [photo[top : top + SIZE, left + shift : left + shift + SIZE] for shift in range(length)]
                place = Path(f"place{scene}", f"{number:04}.png")
                write_image(root / split / "sharp" / place, moved[length // 2].astype(np.uint8))
                write_image(root / split / "blur" / place, np.mean(moved, axis=0).round().astype(np.uint8))


@pytest.mark.timeout(600)
def test_two_commands_lead_from_pinned_images_to_a_latex_table(tmp_path: Path) -> None:
    folder = repository(tmp_path / "project", read_yaml(REPOSITORY / "params.yaml"))
    with (folder / PRESET).open("w") as file:
        YAML(typ="safe").dump(short(read_yaml(REPOSITORY / PRESET)), file)
    write_pairs(folder / "data" / "mine", tmp_path)
    assert len(list((folder / "data" / "mine").rglob("*.png"))) == 200
    page = [command for place, command in commands() if place.startswith("docs/own_data.md")]
    assert len(page) == 7
    for command in page:
        done = attempt(folder, "bash", "-ec", command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}"
    for name in ("main", "differences"):
        assert "BlurDM" in (folder / "reports" / "tables" / f"{name}.tex").read_text()
    tracked = call(folder, "git", "ls-files").split()
    assert {"data/mine.dvc", "dvc.lock", "chain/metrics/measure.json"} <= set(tracked)
    made = [file for file in tracked if file.startswith(("data/", "models/", "chain/"))]
    assert not [file for file in made if file.endswith((".png", ".safetensors"))]
    assert call(folder, "git", "status", "--short") == ""
    assert call(folder, "dvc", "status").strip() == "Data and pipelines are up to date."
