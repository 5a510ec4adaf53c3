"""Digests of the code that a stage's result depends on, without comments, docstrings and formatting."""

import ast
import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent
IGNORED = ("ctx", "kind", "type_comment")
EVERY = ".*"  # as in models.backbones.*: the one file of this package that the config names
DIGEST_LENGTH = 16


def code_files(names: Iterable[str], backbone: str | None) -> list[Path]:
    """The files behind names of packages and modules below ``blurdm``, in order of path.

    A package stands for the modules directly in it, ``package.*`` for its module ``backbone`` if there is one.
    """
    files: set[Path] = set()
    for name in names:
        path = PACKAGE.joinpath(*name.removesuffix(EVERY).split("."))
        if name.endswith(EVERY):
            files.add(path / f"{backbone}.py")
        elif path.is_dir():
            files |= set(path.glob("*.py"))
        else:
            files.add(path.with_suffix(".py"))
    return sorted(file for file in files if file.is_file())


def file_digests(names: Iterable[str], backbone: str | None) -> dict[str, str]:
    """The digest of each file, by its path below the package's parent (``blurdm/models/prior.py``)."""
    files = code_files(names, backbone)
    return {file.relative_to(PACKAGE.parent).as_posix(): _file_digest(file, file.stat().st_mtime_ns) for file in files}


@cache
def code_digest(names: tuple[str, ...], backbone: str | None) -> str:
    """One digest of all these files, taken once per process."""
    return _short(repr(sorted(file_digests(names, backbone).items())))


def source_digest(source: str) -> str:
    """The digest of a module's text, the same on every Python since 3.11."""
    return _short(repr(_canonical(ast.parse(source))))


def changed_files(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Files whose digest differs, or that only one side has."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


@cache
def _file_digest(file: Path, modified: int) -> str:
    return source_digest(file.read_text(encoding="utf-8"))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def _canonical(node: Any) -> Any:
    """A syntax tree as nested tuples: no positions, no empty fields (which differ between Pythons), no bare strings."""
    if isinstance(node, ast.JoinedStr):
        return "JoinedStr", _merged([_canonical(value) for value in node.values])
    if isinstance(node, ast.AST):
        fields = ((name, getattr(node, name, None)) for name in node._fields if name not in IGNORED)
        return (type(node).__name__, *((name, _canonical(value)) for name, value in fields if value not in (None, [])))
    if isinstance(node, list):
        return [_canonical(item) for item in node if not _is_text(item)]
    return repr(node)


def _is_text(node: Any) -> bool:
    """A docstring, or another statement that is a mere string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _merged(parts: list[Any]) -> list[Any]:
    """The parts of an f-string; Pythons differ in how they split its constant text."""
    merged: list[Any] = []
    for part in parts:
        if merged and part[0] == merged[-1][0] == "Constant":
            joined = ast.literal_eval(merged[-1][1][1]) + ast.literal_eval(part[1][1])
            merged[-1] = ("Constant", ("value", repr(joined)))
        else:
            merged.append(part)
    return merged
