"""``blurdm deblur``: every photo once, none overwritten, a bad one told and the rest restored, the same bits always."""

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blurdm.restore.files import MANIFEST
from blurdm.restore.photo import read_photo
from tests.support.photos import described, encoded, picture, run_folder
from tests.support.sections import paper_diffusion
from tests.support.tiny import REPOSITORY, Told, state_of

Command = Callable[..., Told]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder(tmp_path_factory.mktemp("models") / "seed0", "joint", paper_diffusion(beta_end=0.9))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photos of four kinds in two folders, and what is none."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(described(picture(), "JPEG"))
    (folder / "b.PNG").write_bytes(described(picture(channels=4), "PNG"))
    (folder / "deep" / "c.tif").write_bytes(described(picture(channels=1), "TIFF"))
    (folder / "deep" / "d.webp").write_bytes(described(picture(seed=4), "WEBP"))
    (folder / "notes.txt").write_text("not looked at")
    (folder / "._a.jpg").write_text("nor is this")
    return folder


NAMES = {"a.jpg", "b.PNG", "deep/c.tif", "deep/d.webp"}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: content for name, (_, content) in state_of(folder).items()}


def test_a_folder_is_restored_beside_itself_and_only_once(photos: Path, model: Path, blurdm: Command) -> None:
    before = contents(photos)
    told = blurdm("deblur", photos, "--model", model)
    assert told.code == 0 and len(told.out.splitlines()) == 4 and told.err.count("\n") == 1, told.err
    assert "on cpu in fp32" in told.err or "on cuda" in told.err
    restored = contents(photos / "restored")
    assert set(restored) == NAMES | {MANIFEST}
    assert {name: contents(photos)[name] for name in before} == before
    for name in NAMES:
        one, other = read_photo(photos / name), read_photo(photos / "restored" / name)
        assert (one.format, one.pixels.shape, one.pixels.dtype) == (
            other.format,
            other.pixels.shape,
            other.pixels.dtype,
        )
        assert not np.array_equal(one.pixels, other.pixels)
    state = state_of(photos / "restored")
    again = blurdm("deblur", photos, "--model", model)
    assert again.code == 0 and again.out.count("(was there)") == 4 and state_of(photos / "restored") == state
    (photos / "a.jpg").write_bytes(described(picture(seed=9), "JPEG"))
    assert blurdm("deblur", photos, "--model", model).out.count("(restored)") == 1, "the one that changed"
    assert blurdm("deblur", photos, "--model", model, "--seed", 1).out.count("(restored)") == 4


def test_same_bits_in_any_order_under_any_name_and_side_by_side(photos: Path, model: Path, blurdm: Command) -> None:
    out = photos.parent / "out"
    assert blurdm("deblur", photos, "--model", model, "--out", out / "one").code == 0
    first = contents(out / "one")
    told = blurdm("deblur", photos, "--model", model, "--out", out / "two", "--jobs", 2)
    assert told.code == 0, told.err
    assert {k: v for k, v in contents(out / "two").items() if k != MANIFEST} == {
        k: v for k, v in first.items() if k != MANIFEST
    }
    shutil.copy(photos / "a.jpg", photos / "renamed.jpg")
    told = blurdm("deblur", photos / "renamed.jpg", photos / "b.PNG", "--model", model, "--out", out / "three")
    assert told.code == 0
    assert (out / "three" / "renamed.jpg").read_bytes() == first["a.jpg"]
    assert (out / "three" / "b.PNG").read_bytes() == first["b.PNG"]


def test_a_bad_photo_stops_no_other_and_is_told_at_the_end(photos: Path, model: Path, blurdm: Command) -> None:
    (photos / "broken.jpg").write_bytes((photos / "a.jpg").read_bytes()[:1500])
    (photos / "line\nbreak.png").write_text("no photo")
    told = blurdm("deblur", photos, photos.parent / "none.png", "--model", model, "--out", photos.parent / "out")
    assert told.code == 2 and told.out.count("(restored)") == 4 and "Traceback" not in told.err
    assert "3 of 7 photos were not restored" in told.err and len(told.complaints) == 3
    assert "broken.jpg: damaged" in told.complaints[0] and "line\\nbreak.png" in told.complaints[1]
    assert "none.png: no such photo" in told.complaints[2]
    assert not list((photos.parent / "out").glob("*broken*")) and not list((photos.parent / "out").glob("*.tmp"))


def test_what_somebody_else_wrote_is_not_overwritten(photos: Path, model: Path, blurdm: Command) -> None:
    out = photos.parent / "out"
    out.mkdir()
    (out / "a.jpg").write_bytes(b"somebody's")
    told = blurdm("deblur", photos, "--model", model, "--out", out)
    assert told.code == 2 and "is not (or no longer) what blurdm wrote" in told.complaints[0]
    assert (out / "a.jpg").read_bytes() == b"somebody's" and told.out.count("(restored)") == 3
    (out / "b.PNG").write_bytes(b"changed since")
    assert blurdm("deblur", photos / "b.PNG", "--model", model, "--out", out).code == 2
    assert (out / "b.PNG").read_bytes() == b"changed since"


def test_no_photo_is_overwritten_and_no_result_by_another(photos: Path, model: Path, blurdm: Command) -> None:
    before = state_of(photos)
    told = blurdm("deblur", photos, "--model", model, "--out", photos)
    assert told.code == 2 and "would overwrite the photo" in told.complaints[0]
    other = photos.parent / "other"
    shutil.copytree(photos, other)
    told = blurdm("deblur", photos, other, "--model", model, "--out", photos.parent / "out")
    assert told.code == 2 and "like" in told.complaints[0] and not (photos.parent / "out").exists()
    assert state_of(photos) == before


def test_nothing_is_written_through_a_link_out_of_the_folder(photos: Path, model: Path, blurdm: Command) -> None:
    out, elsewhere = photos.parent / "out", photos.parent / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "deep").symlink_to(elsewhere)
    (out / "a.jpg").symlink_to(elsewhere / "a.jpg")
    told = blurdm("deblur", photos, "--model", model, "--out", out)
    assert told.code == 2 and len(told.complaints) == 3 and not list(elsewhere.iterdir())
    assert told.out.count("(restored)") == 1


def test_a_page_shows_before_and_after(photos: Path, model: Path, blurdm: Command) -> None:
    (photos / "<b>&.png").write_bytes(encoded(picture(seed=3), "PNG"))
    out = photos.parent / "out"
    told = blurdm("deblur", photos, "--model", model, "--out", out, "--compare")
    text = (out / "compare.html").read_text()
    assert told.code == 0 and f"before and after: {out}/compare.html" in told.out
    assert text.count('class="before"') == text.count('class="after"') == 5 and text.count("data:image/jpeg") == 10
    assert "<b>&" not in text and "&lt;b&gt;&amp;.png" in text
    assert blurdm("deblur", photos, "--model", model, "--out", out, "--compare").out.count("(was there)") == 5


def test_a_manifest_that_was_cut_off_is_read_as_far_as_it_goes(photos: Path, model: Path, blurdm: Command) -> None:
    blurdm("deblur", photos, "--model", model)
    manifest = photos / "restored" / MANIFEST
    lines = manifest.read_text().splitlines()
    assert {json.loads(line)["name"] for line in lines} == NAMES
    manifest.write_text("\n".join([*lines, '{"name": "a.j', "[]", "\x00"]))
    told = blurdm("deblur", photos, "--model", model)
    assert told.code == 0 and told.out.count("(was there)") == 4


def test_without_a_model_there_is_one_clear_line(
    photos: Path, tmp_path: Path, blurdm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blurdm.restore.models.INSTALLED", tmp_path / "pretrained")
    told = blurdm("deblur", photos)
    assert told.code == 2 and "no model given, and none called 'photos' is installed" in told.complaints[0]


def test_an_installed_model_is_found_by_name_and_the_usual_one_without(
    photos: Path, model: Path, tmp_path: Path, blurdm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blurdm.restore.models.INSTALLED", tmp_path / "pretrained")
    for name in ("photos", "other"):
        assert blurdm("export", "model", model, tmp_path / "pretrained" / f"{name}.safetensors").code == 0
    choices: list[list[object]] = [[], ["--model", "other"], ["--model", model]]
    for number, options in enumerate(choices):
        assert blurdm("deblur", photos / "a.jpg", *options, "--out", tmp_path / f"out{number}").code == 0
    first, *rest = ((tmp_path / f"out{number}" / "a.jpg").read_bytes() for number in range(3))
    assert all(other == first for other in rest)
    told = blurdm("deblur", photos / "a.jpg", "--model", "nane", "--out", tmp_path / "out")
    assert told.code == 2 and "'nane' is not known; known: other, photos" in told.complaints[0]


def test_a_terminal_sees_how_long_it_takes(photos: Path, model: Path, tmp_path: Path) -> None:
    terminal, inside = pty.openpty()
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "blurdm",
        "deblur",
        photos,
        "--model",
        model,
        "--out",
        tmp_path / "out",
    ]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=inside)
    os.close(inside)
    seen = b""
    with contextlib.suppress(OSError):  # the terminal is closed at the end
        while part := os.read(terminal, 4096):
            seen += part
    os.close(terminal)
    assert process.wait() == 0
    assert b"restoring" in seen and b"4/4" in seen and b"0:00:0" in seen
