"""The test pairs of a prepared data set. Only the stages ``restore`` and ``measure`` open them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blurdm.core.ahead import helpers, neighbours
from blurdm.core.runs import Resources
from blurdm.core.seeding import generator
from blurdm.core.store import read_json
from blurdm.restore.tensors import Decoded, decoded_ahead

BATCH = 8  # images of one size that a GPU gets together


@dataclass(frozen=True)
class TestImage:
    """One test pair: its files, and the photo or video (scene) it belongs to."""

    scene: str
    name: str
    blur: Path
    sharp: Path

    @property
    def identity(self) -> str:
        return f"{self.scene}/{self.name}"

    def file(self, folder: Path, arm: str) -> Path:
        """Where its restoration as ``arm`` lies below a folder of restored images."""
        return folder / arm / self.scene / f"{self.name}.png"


def test_images(prepared: Path, root: Path) -> list[TestImage]:
    """The test pairs of a prepared data set, in the order of its index."""
    pairs = read_json(prepared / "index.json")["pairs"]
    return [
        TestImage(p["scene"], p["name"], root / p["blur"], root / p["sharp"]) for p in pairs if p["split"] == "test"
    ]


def samples(tests: list[TestImage], per_scene: int) -> list[TestImage]:
    """The first images of every scene."""
    seen: Counter[str] = Counter()
    chosen = []
    for test in tests:
        if seen[test.scene] < per_scene:
            chosen.append(test)
        seen[test.scene] += 1
    return chosen


def foreign(test: TestImage, tests: list[TestImage], seed: int) -> TestImage:
    """An image of another scene, drawn once for ``test``: if its latent serves as well, the prior is not used."""
    others = [t for t in tests if t.scene != test.scene]
    return others[generator(seed, "foreign", test.identity).integers(len(others))]


def of_one_size(
    tests: Iterable[TestImage],
    files: Callable[[TestImage], Iterable[Path]],
    sized: Callable[[TestImage], Path],
    resources: Resources,
    most: int | None = None,
) -> Iterator[tuple[list[TestImage], Decoded]]:
    """Neighbours whose files ``sized`` have one size, with all their ``files``, which are decoded ahead.

    They are at most ``most``; None: BATCH for a GPU, and one for a CPU, which is no quicker with several.
    """
    most = most or (BATCH if resources.device.startswith("cuda") else 1)
    threads = helpers(resources.device, resources.threads)
    read = decoded_ahead(tests, files, resources.device, threads, most)
    for group in neighbours(read, lambda pair: pair[1][sized(pair[0])].shape, most):
        yield [test for test, _ in group], {path: image for _, decoded in group for path, image in decoded.items()}
