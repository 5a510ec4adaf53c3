"""A config of seconds for a tiny real data set, and what one call of the command line printed."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from blurdm.core.config import Config
from blurdm.core.config_io import read_yaml, validate
from blurdm.data.pairs import read_image, write_image
from blurdm.data.photos.sources import PACKAGED

REPOSITORY = Path(__file__).parents[2]
SMOKE = REPOSITORY / "experiments" / "presets" / "smoke.yaml"
TRAIN, TEST = ("astronaut", "brick", "rocket"), ("chelsea", "coffee")
VALIDATION = "brick"
WINDOW = (41, 47)


def write_crop(stem: str, folder: Path) -> None:
    """The middle of a packaged photo, just large enough for windows of 41x47 px and their motion."""
    photo = next(p for p in PACKAGED if Path(p.file).stem == stem)
    spec = find_spec(photo.package)
    assert spec is not None and spec.submodule_search_locations
    pixels = read_image(Path(spec.submodule_search_locations[0]) / photo.path, grey_ok=True)
    top, left = pixels.shape[0] // 2 - 45, pixels.shape[1] // 2 - 50
    write_image(folder / f"{stem}.png", pixels[top : top + 90, left : left + 100])


def tiny_tree(root: Path, **overrides: Any) -> dict[str, Any]:
    """The smoke preset for the tiny data, as sections; ``overrides`` have dotted names: ``**{"data.crop": 16}``."""
    tree = read_yaml(SMOKE)
    changes = {"synthesis": None, "data.root": str(root), "data.val_scenes": [VALIDATION], "data.val_images": 1}
    for name, value in (changes | overrides).items():
        node = tree
        *parents, leaf = name.split(".")
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return tree


def tiny_config(root: Path, **overrides: Any) -> Config:
    return validate(tiny_tree(root, **overrides), "tiny config")


def write_tiny_config(path: Path, root: Path, **overrides: Any) -> Path:
    """The same as a YAML file, for the command line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(tiny_tree(root, **overrides), file)
    return path


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each file below ``folder`` was last written, and its content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@dataclass(frozen=True)
class Told:
    """What one call of the command line said."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("blurdm: ")]
