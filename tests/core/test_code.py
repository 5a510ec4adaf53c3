"""Digests of code: only code counts, the same on every Python; a stage names all that its result depends on."""

import ast
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blurdm.core.arms import STAGES
from blurdm.core.code import PACKAGE, changed_files, code_digest, code_files, file_digests, source_digest

SOURCE = '''
"""A module."""
import math

LIMIT = 1e-3


class Point:
    """A point."""


def area(r: float, *, unit="m") -> str:
    """Area of a circle."""
    value = math.pi * r**2  # of radius r
    match unit:
        case "m" | "cm":
            return f"{value:.{3}f} {unit!r}" "^2"
    raise ValueError(f"unit {unit}: unknown", {**{}}, [*()], -1, 1j, b"x", ..., None)
'''
DIGEST = "85ab5fa38f747d4d"  # of SOURCE, on every Python

SAME = {
    "comment": SOURCE.replace("# of radius r", "# of the radius"),
    "docstrings": SOURCE.replace("A module.", "Another.").replace("Area of a circle.", "What it covers."),
    "no docstring": SOURCE.replace('    """Area of a circle."""\n', ""),
    "quotes": SOURCE.replace('unit="m"', "unit='m'"),
    "parentheses": SOURCE.replace("math.pi * r**2", "(math.pi * (r**2))"),
    "line breaks": SOURCE.replace("(r: float, *, unit=", "(\n    r: float,\n    *,\n    unit="),
    "number": SOURCE.replace("1e-3", "0.001"),
}
OTHER = {
    "a statement": SOURCE + "X = 1\n",
    "a constant": SOURCE.replace("1e-3", "1e-4"),
    "a type of constant": SOURCE.replace("LIMIT = 1e-3", "LIMIT = 1").replace("r**2", "r**2.0"),
    "a default": SOURCE.replace('unit="m"', 'unit="cm"'),
    "an operator": SOURCE.replace("math.pi * r", "math.pi + r"),
    "text of an f-string": SOURCE.replace("^2", "^3"),
    "a format": SOURCE.replace(".{3}f", ".{4}f"),
}


def test_only_code_counts() -> None:
    assert {name: source_digest(text) for name, text in SAME.items()} == dict.fromkeys(SAME, DIGEST)
    digests = [source_digest(text) for text in OTHER.values()]
    assert DIGEST not in digests and len(set(digests)) == len(OTHER)


PYTHONS = sorted(
    {
        *Path("/usr/bin").glob("python3.1[1-9]"),
        *Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.1[1-9]*/bin/python"),
    }
)
DIGEST_ALL = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("digests", sys.argv[1])
module = module_from_spec(spec)
spec.loader.exec_module(module)
print(*(module.source_digest(file.read_text()) for file in sorted(module.PACKAGE.rglob("*.py"))))
"""


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_every_python_gives_the_same_digests(python: Path) -> None:
    command = [str(python), "-I", "-c", DIGEST_ALL, str(PACKAGE / "core" / "code.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [source_digest(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))]


def imported(file: Path) -> Iterator[Path]:
    """Files of the package that ``file`` imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            for alias in node.names:
                names = f"{node.module}.{alias.name}", node.module
                places = [PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py") for name in names]
                yield from [place for place in places if place.is_file()][:1]


# Imported by a stage, and yet no part of what its result depends on.
NO_PART = {
    **{name: {"diffusion"} for name, stage in STAGES.items() if stage.trains in ("baseline", "direct", "pretrain")},
    "restore": {"training", "restore/trained_on.py"},  # reads the weights; what a photo's model is said to be good for
    "measure": {"diffusion", "models", "restore", "stages", "training"},  # restores again: in the restore run's key
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_all_the_code_that_it_imports(name: str) -> None:
    """Modules of core are plumbing, but for the random draws."""
    stage = STAGES[name]
    reached = [PACKAGE.parent.joinpath(*stage.function.partition(":")[0].split(".")).with_suffix(".py")]
    for file in reached:
        reached += [other for other in imported(file) if other not in reached]
    named = set(code_files(stage.code, "mimo_unet"))
    parts = {file.relative_to(PACKAGE).as_posix() for file in set(reached) - named}
    plumbing = {"core", "pages", *NO_PART.get(name, ())}
    assert {part for part in parts if not {part, part.partition("/")[0]} & plumbing} == set()
    assert PACKAGE / "core" / "seeding.py" in named or name in ("measure",), "the random draws are part of the result"


def test_a_package_stands_for_its_modules_and_a_star_for_one_of_them() -> None:
    names = {file.relative_to(PACKAGE).as_posix() for file in code_files(("models", "core.seeding"), "tiny")}
    assert "models/prior.py" in names and "core/seeding.py" in names
    assert not any(name.startswith("models/backbones/") for name in names)
    backbone = [f.relative_to(PACKAGE).as_posix() for f in code_files(("models.backbones.*",), "tiny")]
    assert backbone == ["models/backbones/tiny.py"] and code_files(("models.backbones.*",), None) == []


def test_the_digest_follows_the_files_that_are_named() -> None:
    one, other = (code_digest(("models.backbones.*", "core.seeding"), name) for name in ("tiny", "nafnet"))
    assert one != other != code_digest(("core.seeding",), None)
    before, after = (file_digests(("models.backbones.*", "core.seeding"), name) for name in ("tiny", "nafnet"))
    assert changed_files(before, after) == [f"blurdm/models/backbones/{name}.py" for name in ("nafnet", "tiny")]
    assert changed_files(before, before) == []
