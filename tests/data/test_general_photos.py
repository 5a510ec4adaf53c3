"""The general set tests on photos that no other set has, of every content; page and presets agree with its table."""

from collections import Counter
from pathlib import Path

from blurdm.core.config_io import load_config
from blurdm.data.photos import sources

REPOSITORY = Path(__file__).parents[2]
PHOTOS: tuple[sources.PackagedPhoto | sources.FetchedPhoto, ...] = (*sources.PACKAGED, *sources.FETCHED)
KEPT = [photo for photo in sources.FETCHED if photo.split == "test"]
ALL, TESTED = Counter(photo.content for photo in PHOTOS), Counter(photo.content for photo in KEPT)


def test_every_content_is_trained_and_tested_on() -> None:
    assert {photo.set for photo in KEPT} == {"general"}
    assert ALL.keys() == TESTED.keys()
    assert min(TESTED.values()) >= 4 and min((ALL - TESTED).values()) >= 4
    assert min(photo.sharpness for photo in KEPT) >= 200  # what restorations are compared with is sharp


def test_the_page_on_data_has_the_counts_of_the_table() -> None:
    page = (REPOSITORY / "docs/data.md").read_text()
    packages = {photo.package for photo in sources.FETCHED}
    megabytes = sum(package.megabytes for package in packages)
    assert f"{len(PHOTOS)} photos from {len(packages)} packages, {megabytes:.0f} MB to download" in page
    for content, tested in TESTED.items():
        row = next(line for line in page.splitlines() if line.startswith("| ") and content in line)
        assert row.endswith(f" | {ALL[content] - tested} | {tested} |")
    assert f"| all | {len(PHOTOS) - len(KEPT)} | {len(KEPT)} |" in page


def test_presets_keep_its_test_photos() -> None:
    for preset in (REPOSITORY / "experiments/presets").glob("*.yaml"):
        synthesis = load_config(preset).synthesis
        if synthesis is not None and synthesis.photos == "data/general":
            assert tuple(sorted(synthesis.test_photos)) == sources.test_photos(), preset.name
