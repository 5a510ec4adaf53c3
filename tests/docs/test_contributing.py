"""What CONTRIBUTING.md says works: its example of a backbone passes the contract that every backbone does."""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from blurdm.core.registry import module_names
from blurdm.models import build
from tests.contracts import test_backbones as contract
from tests.support.tiny import REPOSITORY

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text()
CONTRACT = [f for name, f in inspect.getmembers(contract, inspect.isfunction) if name.startswith("test_")]


def cases(function: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """The arguments of every case of a parametrised test, without the ``name`` of the backbone."""
    dimensions = []
    for mark in (mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"):
        names, values = mark.args
        names = (names,) if isinstance(names, str) else names
        dimensions.append([dict(zip(names, v if len(names) > 1 else (v,), strict=True)) for v in values])
    for combination in product(*dimensions):
        yield {key: value for part in combination for key, value in part.items()}


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the example, whose file is the only one in the package of backbones."""
    (code,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    (name,) = re.findall(r"This is the whole of `blurdm/models/backbones/(\w+)\.py`", TEXT)
    folder = tmp_path / "example_backbones"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in (build, contract):
        monkeypatch.setattr(module, "BACKBONES", folder.name)
    importlib.invalidate_caches()
    assert module_names(folder.name) == [name]
    yield name
    for loaded in [loaded for loaded in sys.modules if loaded.startswith(folder.name)]:
        del sys.modules[loaded]


@pytest.mark.parametrize("function", CONTRACT, ids=lambda function: function.__name__)
def test_the_example_of_a_backbone_passes_the_contract(function: Callable[..., None], example: str) -> None:
    arguments_of_cases = list(cases(function))
    assert arguments_of_cases
    for arguments in arguments_of_cases:
        function(name=example, **arguments)


def test_the_contract_would_notice_a_wrong_example(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contract.module_of(example).PARAMETERS, None, 1)
    with pytest.raises(AssertionError):
        contract.test_parameter_counts_are_the_stated_ones(example)


def test_the_files_that_it_names_exist() -> None:
    paths = re.findall(r"`((?:blurdm|experiments|tests|analysis|docs)/[\w/.]+)`", TEXT)
    assert len(paths) > 10
    missing = [path for path in paths if not (REPOSITORY / path).exists()]
    assert missing == ["blurdm/models/backbones/shallow.py"], "only the example is not in the repository"
