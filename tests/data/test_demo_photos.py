"""The demo's photos are copied byte for byte, match the tracked pin, and a difference names the file."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from blurdm.core.errors import InputError
from blurdm.data.pairs import read_image
from blurdm.data.photos import demo, pins, sources

PIN = Path(__file__).parents[2] / "data.dvc"


@pytest.fixture
def pinned(tmp_path: Path) -> tuple[Path, Path]:
    """A copy of data.dvc beside a fresh copy of what it pins."""
    shutil.copy(PIN, tmp_path)
    demo.copy_photos(tmp_path / "data/demo")
    return tmp_path / "data.dvc", tmp_path / "data/demo"


def test_copy_is_exact_and_idempotent(pinned: tuple[Path, Path]) -> None:
    _, folder = pinned
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert demo.copy_photos(folder) == sorted(path.name for path in folder.iterdir())
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    for photo in sources.PACKAGED:
        spec = importlib.util.find_spec(photo.package)
        assert spec is not None and spec.submodule_search_locations is not None
        source = Path(spec.submodule_search_locations[0]) / photo.path
        assert (folder / photo.file).read_bytes() == source.read_bytes()
        assert read_image(folder / photo.file, grey_ok=True).shape[2] == 3
        assert photo.file in (folder / "LICENSES.md").read_text()


def test_pin_matches_and_copy_repairs(pinned: tuple[Path, Path]) -> None:
    pin, folder = pinned
    pins.verify_pin(pin, folder, demo.demo_set())
    (folder / "china.jpg").write_bytes(b"broken")
    demo.copy_photos(folder)
    pins.verify_pin(pin, folder, demo.demo_set())


def change(folder: Path) -> None:
    content = bytearray((folder / "coffee.png").read_bytes())
    content[-9] ^= 1
    (folder / "coffee.png").write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (change, "changed coffee.png"),
        (lambda folder: (folder / "china.jpg").unlink(), "missing china.jpg"),
        (lambda folder: (folder / "own.png").write_bytes(b""), "unexpected own.png"),
        (lambda folder: shutil.rmtree(folder), "no such folder"),
    ],
)
def test_a_difference_names_the_file(pinned: tuple[Path, Path], spoil: Callable[[Path], object], told: str) -> None:
    pin, folder = pinned
    spoil(folder)
    with pytest.raises(InputError) as error:
        pins.verify_pin(pin, folder, demo.demo_set())
    assert told in str(error.value) and str(folder) in str(error.value) and "\n" not in str(error.value)


def test_provided_photos_are_made_once_and_never_changed(pinned: tuple[Path, Path]) -> None:
    pin, folder = pinned
    shutil.rmtree(folder)
    count = pins.provide_photos(folder, pin, demo.demo_set())
    assert count == pins.provide_photos(folder, pin, demo.demo_set()) == len(sources.PACKAGED) + 1
    spoilt = folder / "coffee.png"
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"x")
    content = spoilt.read_bytes()
    with pytest.raises(InputError, match=r"coffee\.png"):
        pins.provide_photos(folder, pin, demo.demo_set())
    assert spoilt.read_bytes() == content


def test_a_pin_of_own_data_is_compared_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/own.png").write_bytes(b"own")
    wanted = pins.directory_hash({"own.png": "9fa6ff11f3e45e4b5a6d9cfa2a8a6f3a"})
    (tmp_path / "data.dvc").write_text(f"outs:\n- md5: {wanted}\n  path: data\n")
    with pytest.raises(InputError, match="its 1 files differ from the version pinned"):
        pins.verify_pin(tmp_path / "data.dvc", tmp_path / "data", demo.demo_set())


@pytest.mark.parametrize("text", ["", "outs: 3", "a: [", "outs:\n- path: data\n"])
def test_a_broken_pin_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.dvc").write_text(text)
    with pytest.raises(InputError, match="data.dvc: not (a DVC file|valid YAML)"):
        pins.verify_pin(tmp_path / "data.dvc", tmp_path, demo.demo_set())


def test_a_pin_of_another_folder(pinned: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="does not pin .*other; it pins: .*data/demo"):
        pins.verify_pin(pinned[0], pinned[1].parent / "other", demo.demo_set())


def test_a_missing_or_different_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = sources.PACKAGED[0]
    missing = sources.PackagedPhoto("no_such_package", photo.path, photo.md5, "", "", "")
    monkeypatch.setattr(sources, "PACKAGED", (missing,))
    with pytest.raises(InputError, match=r"no_such_package is not installed; pip install 'blurdm\[data\]'"):
        demo.copy_photos(tmp_path)
    monkeypatch.setattr(sources, "PACKAGED", (sources.PackagedPhoto(photo.package, photo.path, "0" * 32, "", "", ""),))
    with pytest.raises(InputError, match="sklearn/datasets/images/china.jpg: md5 .* another package version"):
        demo.copy_photos(tmp_path)


def test_licence_is_known_for_the_photo_not_for_its_name(pinned: tuple[Path, Path]) -> None:
    content = (pinned[1] / "china.jpg").read_bytes()
    assert sources.licence_of("china.jpg", content) == "CC-BY 2.0"
    assert sources.licence_of("china.jpg", b"another") == sources.licence_of("other.jpg", content) == ""
