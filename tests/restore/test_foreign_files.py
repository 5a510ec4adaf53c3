"""``blurdm deblur`` in folders of somebody else: their files are kept, links lead nowhere, nothing becomes public."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from blurdm.restore import batch
from blurdm.restore.files import MANIFEST
from blurdm.restore.restorer import Restorer
from blurdm.restore.scales import Restored
from tests.support.photos import encoded, picture, run_folder
from tests.support.sections import paper_diffusion
from tests.support.tiny import Told

Command = Callable[..., Told]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder(tmp_path_factory.mktemp("models") / "seed0", "baseline", paper_diffusion())


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two photos, beside a file that is not in the album."""
    folder = tmp_path / "album"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.png").write_bytes(encoded(picture(), "PNG"))
    (folder / "deep" / "b.jfif").write_bytes(encoded(picture(seed=1), "JPEG"))
    (tmp_path / "precious.txt").write_text("mine\n")
    (tmp_path / "elsewhere").mkdir()
    return folder


def linked_manifest(album: Path) -> Path:
    (album / "restored").mkdir()
    (album / "restored" / MANIFEST).symlink_to("../../precious.txt")
    return album / "restored" / MANIFEST


def doubled_manifest(album: Path) -> Path:
    (album / "restored").mkdir()
    os.link(album.parent / "precious.txt", album / "restored" / MANIFEST)
    return album / "restored" / MANIFEST


def piped_manifest(album: Path) -> Path:
    (album / "restored").mkdir()
    os.mkfifo(album / "restored" / MANIFEST)
    return album / "restored" / MANIFEST


def foreign_manifest(album: Path) -> Path:
    (album / "restored").mkdir()
    (album / "restored" / MANIFEST).write_text("my own notes")
    return album / "restored" / MANIFEST


def linked_folder(album: Path) -> Path:
    (album / "restored").symlink_to("../elsewhere")
    return album / "restored"


@pytest.mark.parametrize(
    "trap",
    [linked_manifest, doubled_manifest, piped_manifest, foreign_manifest, linked_folder],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("given", ["album", "photo"])
def test_a_trap_is_named_before_anything_is_restored(
    trap: Callable[[Path], Path], given: str, album: Path, model: Path, blurdm: Command
) -> None:
    named = trap(album)
    content = named.read_bytes() if named.is_file() else b""
    result = blurdm("deblur", album if given == "album" else album / "a.png", "--model", model)
    (line,) = result.complaints
    assert result.code == 2 and line.startswith(f"blurdm: {named}: is ") and not result.out
    assert (album.parent / "precious.txt").read_text() == "mine\n" and not list((album.parent / "elsewhere").iterdir())
    assert not named.is_file() or named.read_bytes() == content


def test_a_link_that_the_user_names_is_followed(album: Path, model: Path, blurdm: Command) -> None:
    (album.parent / "own").symlink_to("elsewhere")
    result = blurdm("deblur", album, "--model", model, "--out", album.parent / "own")
    assert result.code == 0, result.err
    assert (album.parent / "elsewhere" / "deep" / "b.jfif").is_file()


def test_links_where_temporary_files_were_do_no_harm(album: Path, model: Path, blurdm: Command) -> None:
    (album / "restored").mkdir()
    for number in (*range(1, 1000), os.getpid()):
        (album / "restored" / f".a.png.{number}.tmp").symlink_to("../../precious.txt")
    result = blurdm("deblur", album, "--model", model)
    assert result.code == 0 and not (album / "restored" / "a.png").is_symlink()
    assert (album.parent / "precious.txt").read_text() == "mine\n"


@pytest.mark.parametrize("earlier", [False, True], ids=["new", "in the place of an earlier result"])
def test_a_file_put_at_the_target_meanwhile_is_kept(
    earlier: bool, album: Path, model: Path, blurdm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, restore = album / "restored" / "a.png", Restorer.restore_photo
    if earlier:
        assert blurdm("deblur", album, "--model", model, "--seed", 1).code == 0

    def put(*arguments: object, **options: object) -> Restored:
        target.parent.mkdir(exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_text("somebody's")
        return restore(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Restorer, "restore_photo", put)
    result = blurdm("deblur", album, "--model", model)
    assert result.code == 2 and len(result.complaints) == 1 and str(target) in result.complaints[0]
    assert target.read_text() == "somebody's" and result.out.count("(restored)") == 1


def test_a_foreign_page_is_kept_and_an_own_one_made_anew(album: Path, model: Path, blurdm: Command) -> None:
    restored = album / "restored"
    restored.mkdir()
    (restored / "compare.html").write_text("MY OWN NOTES\n")
    (restored / "compare-2.html").symlink_to("../../precious.txt")
    for name in ("a.png", "c.png"):
        (album / name).write_bytes(encoded(picture(seed=5), "PNG"))
        result = blurdm("deblur", album, "--model", model, "--compare")
        assert result.code == 0 and f"before and after: {restored}/compare-3.html" in result.out
    assert (restored / "compare.html").read_text() == "MY OWN NOTES\n"
    assert (album.parent / "precious.txt").read_text() == "mine\n"
    assert (restored / "compare-3.html").read_text().count('class="before"') == 3
    assert not (restored / "compare-4.html").exists()


def test_nothing_is_wider_than_the_photo(album: Path, model: Path, blurdm: Command) -> None:
    (album / "a.png").chmod(0o600)
    (album / "deep" / "b.jfif").chmod(0o640)
    before = os.umask(0)
    try:
        assert blurdm("deblur", album, "--model", model, "--compare").code == 0
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (album / "restored").rglob("*") if path.is_file()}
    assert modes == {"a.png": 0o600, "b.jfif": 0o640, MANIFEST: 0o600, "compare.html": 0o600}


def test_what_is_not_restored_is_named(album: Path, model: Path, blurdm: Command) -> None:
    (album / "b.gif").write_bytes(encoded(picture(channels=1), "GIF"))
    (album / "deep" / "copy").write_bytes(encoded(picture(), "PNG"))
    (album / "d.avif").write_bytes(encoded(picture(), "AVIF"))
    (album / "notes.txt").write_text("no picture")
    (album / "linked").symlink_to("../elsewhere")
    os.mkfifo(album / "pipe")
    result = blurdm("deblur", album, "--model", model)
    assert result.code == 0 and result.out.count("(restored)") == 2
    lines = result.err.splitlines()[1:]
    assert lines == [
        f"not restored, linked folders: {album}/linked",
        f"not restored, pictures of other formats: {album}/b.gif, {album}/d.avif, {album}/deep/copy",
    ]


@pytest.mark.parametrize("name", ["x" * 246 + ".png", "Ф" * 125 + ".png", "x" * 251 + ".png"])
def test_names_as_long_as_the_disk_allows(name: str, album: Path, model: Path, blurdm: Command) -> None:
    (album / name).write_bytes(encoded(picture(), "PNG"))
    result = blurdm("deblur", album, "--model", model)
    assert result.code == 0 and (album / "restored" / name).is_file() and result.out.count("(restored)") == 3


def test_another_process_may_restore_the_same_photos_meanwhile(
    album: Path, model: Path, blurdm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore, codes = Restorer.restore_photo, []

    def beside(*arguments: object, **options: object) -> Restored:
        monkeypatch.setattr(Restorer, "restore_photo", restore)
        codes.append(batch.deblur([album], None, {"model": model}))
        return restore(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Restorer, "restore_photo", beside)
    result = blurdm("deblur", album, "--model", model)
    assert (result.code, codes) == (0, [0]), result.err
    assert blurdm("deblur", album, "--model", model).out.count("(was there)") == 2


def test_no_line_of_a_manifest_is_an_error(album: Path, model: Path, blurdm: Command) -> None:
    assert blurdm("deblur", album, "--model", model).code == 0
    manifest = album / "restored" / MANIFEST
    lines = ['{"name": ["a.png"], "input": [], "settings": 3, "output": {}}', '{"name": ' + "[" * 100_000, "\0", "3"]
    lines += ['{"name": "a.png"}', '{"name": ' + "9" * 5000 + "}", '{"name": "half of a li']
    manifest.write_text("\n".join([*lines[:1], manifest.read_text(), *lines[1:]]))
    result = blurdm("deblur", album, "--model", model)
    assert result.code == 0 and result.out.count("(was there)") == 2
    assert blurdm("deblur", album, "--model", model, "--seed", 1).code == 0
    assert blurdm("deblur", album, "--model", model, "--seed", 1).out.count("(was there)") == 2
