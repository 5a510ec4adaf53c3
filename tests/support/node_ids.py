"""Ids of tests, looked up in the syntax trees: nothing is imported or collected."""

import ast
from functools import cache
from pathlib import Path

from tests.support.tiny import REPOSITORY


@cache
def names_in(path: Path) -> frozenset[str]:
    """The names of the test functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def exists(node_id: str) -> bool:
    """True for ``tests/x/test_y.py::test_z`` if that function is there; parameters in brackets are not checked."""
    path, _, name = node_id.partition("::")
    file = REPOSITORY / path
    return path.startswith("tests/") and file.is_file() and name.partition("[")[0] in names_in(file)
