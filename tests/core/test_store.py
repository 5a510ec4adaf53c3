"""Writing: whole or not at all, to a file of ours or to none, through no link, and no wider than asked for."""

import ast
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from blurdm.core.errors import InputError
from blurdm.core.store import append_line, locked, write_bytes
from tests.support.tiny import REPOSITORY

WRITERS: list[Callable[[Path], object]] = [
    lambda path: write_bytes(path, b"ours"),
    lambda path: append_line(path, "ours"),
]


def link(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


def lost_link(path: Path, precious: Path) -> None:
    path.symlink_to(precious.with_name("nowhere"))


def pipe(path: Path, precious: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, precious: Path) -> None:
    path.mkdir()


def device(path: Path, precious: Path) -> None:
    path.symlink_to("/dev/full")


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / "precious.txt"
    path.write_text("mine\n")
    return path


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("kind", [link, lost_link, pipe, folder, device])
def test_only_a_file_is_written_to(write: Callable[[Path], object], kind: Callable[..., None], precious: Path) -> None:
    target = precious.with_name("out.txt")
    kind(target, precious)
    before = target.lstat()
    with pytest.raises(
        InputError, match=rf"^{target}: is a (link|pipe or device|folder); should be a file, or not there$"
    ):
        write(target)
    assert precious.read_text(encoding="utf-8") == "mine\n" and target.lstat() == before
    assert {path.name for path in precious.parent.iterdir()} == {"precious.txt", "out.txt"}


def test_a_hard_link_is_replaced_and_never_written_through(precious: Path) -> None:
    target = precious.with_name("out.txt")
    os.link(precious, target)
    with pytest.raises(InputError, match=r"out\.txt: is a hard link"):
        append_line(target, "ours")
    write_bytes(target, b"ours")
    assert precious.read_text(encoding="utf-8") == "mine\n" and target.read_bytes() == b"ours"


@pytest.mark.parametrize("kind", [link, pipe])
def test_a_lock_is_no_link(kind: Callable[..., None], precious: Path) -> None:
    kind(precious.with_name("lock"), precious)
    with pytest.raises(InputError, match="lock: is a "), locked(precious.parent):
        pass
    assert precious.read_text(encoding="utf-8") == "mine\n"


def test_links_under_every_name_that_can_be_guessed_do_no_harm(precious: Path) -> None:
    target = precious.with_name("a.png")
    for number in {*range(1, 2000), os.getpid()}:
        target.with_name(f".a.png.{number}.tmp").symlink_to(precious)
    write_bytes(target, b"ours")
    assert (
        precious.read_text(encoding="utf-8") == "mine\n" and target.read_bytes() == b"ours" and not target.is_symlink()
    )


def test_nothing_is_written_through_a_linked_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own").symlink_to("elsewhere")
    (tmp_path / "elsewhere" / "deep").symlink_to(tmp_path)
    named = rf"^{tmp_path}/own: is a link or a file; should be a folder"
    for place in (tmp_path / "own" / "a.txt", tmp_path / "own" / "deep" / "a.txt"):
        with pytest.raises(InputError, match=named):
            write_bytes(place, b"ours", below=tmp_path)
        with pytest.raises(InputError, match=named):
            append_line(place, "ours", below=tmp_path)
    assert not list((tmp_path / "elsewhere").glob("*.txt")) and not list(tmp_path.glob("*.txt"))
    write_bytes(tmp_path / "own" / "b.txt", b"the user's own link", below=tmp_path / "own")
    write_bytes(tmp_path / "own" / "new" / "c.txt", b"", below=tmp_path / "own")
    assert (tmp_path / "elsewhere" / "b.txt").is_file() and (tmp_path / "elsewhere" / "new" / "c.txt").is_file()


@pytest.mark.parametrize("links", [True, False], ids=["", "a disk without hard links"])
@pytest.mark.parametrize("when", ["before", "while it is written"])
def test_what_appears_meanwhile_is_kept(
    links: bool, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.png"

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    def appear(descriptor: int) -> None:
        target.write_text("somebody's")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    write_bytes(tmp_path / "new.png", b"ours", new=True)
    assert (tmp_path / "new.png").read_bytes() == b"ours"
    if when == "before":
        appear(0)
    else:
        monkeypatch.setattr(os, "fsync", appear)
    with pytest.raises(InputError, match=r"a\.png: cannot be written \(File exists\)"):
        write_bytes(target, b"ours", new=True)
    assert target.read_text() == "somebody's" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("mode", "appended"), [(0o600, 0o600), (0o640, 0o640), (0o440, 0o640), (0o400, 0o600)])
def test_permissions_are_no_wider_than_asked(mode: int, appended: int, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        (tmp_path / "lines").write_text("of everybody\n")
        for _ in range(2):
            write_bytes(tmp_path / "whole", b"", mode=mode)
            append_line(tmp_path / "lines", "more", mode=mode)
            append_line(tmp_path / "new", "more", mode=mode)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"whole": mode, "lines": appended, "new": appended}, "who appends must be able to write"


def test_a_line_after_a_half_written_one_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, "first")
    append_line(path, "second")
    path.write_bytes(path.read_bytes()[:-3])
    append_line(path, "third")
    assert path.read_text() == "first\nseco\nthird\n"


def test_names_may_be_as_long_as_the_disk_allows(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".png")
    write_bytes(path, b"a")
    write_bytes(path, b"b", new=False)
    assert path.read_bytes() == b"b" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match="cannot be written"):
        write_bytes(tmp_path / ("x" * 256), b"")


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "a", b"old")

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    with pytest.raises(InputError, match=r"a/b: cannot be written \((Not a directory|File exists)\)"):
        write_bytes(tmp_path / "a" / "b", b"")


WRITERS_OF_PATHS = {"write_text", "write_bytes", "copyfile", "copyfileobj", "savetxt", "save_file"}
# folders that only this user can read, and a control file of the kernel
ELSEWHERE = {"blurdm/app/worker.py", "blurdm/metrics/weights_fetch.py", "blurdm/models/cost.py"}


def writes(source: str) -> list[int]:
    """Lines that open a file to write it, or call a method that does."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        options = {option.arg for option in node.keywords}
        values = [v.value for v in (*node.args, *(k.value for k in node.keywords)) if isinstance(v, ast.Constant)]
        opens = name in ("open", "fdopen") and any(
            value in {"w", "wb", "a", "ab", "a+", "r+b", "x"} for value in values
        )
        if (opens and "fileobj" not in options) or (isinstance(node.func, ast.Attribute) and name in WRITERS_OF_PATHS):
            lines.append(node.lineno)
    return lines


def test_nothing_is_written_past_the_store() -> None:
    files = [path for root in ("blurdm", "experiments", "analysis") for path in (REPOSITORY / root).rglob("*.py")]
    sources = {path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8") for path in files}
    assert len(sources) > 100 and len(writes(sources.pop("blurdm/core/store.py"))) == 3
    lines = {name: writes(source) for name, source in sources.items() if name not in ELSEWHERE}
    assert {name: numbers for name, numbers in lines.items() if numbers} == {}
