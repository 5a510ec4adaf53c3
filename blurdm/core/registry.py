"""Lookup by name; an unknown name lists the known ones. In a folder of modules, the file name is the registration."""

import importlib
import pkgutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from blurdm.core.errors import InputError

T = TypeVar("T")


def lookup(kind: str, name: str, entries: Mapping[str, T]) -> T:
    """The entry called ``name``; InputError lists the known names of this ``kind`` otherwise."""
    require(kind, name, entries)
    return entries[name]


def require(kind: str, name: str, known: Collection[str]) -> None:
    """InputError unless ``name`` is one of the ``known`` names."""
    if not isinstance(name, str) or name not in known:  # a grid may hold anything
        raise InputError(f"{kind} '{name}' is not known; known: {', '.join(sorted(known))}")


def module_names(package: str) -> list[str]:
    """Names registered in ``package`` by having a file there; nothing is imported but the (empty) package itself."""
    path = Path(importlib.import_module(package).__file__ or "").parent
    return sorted(m.name for m in pkgutil.iter_modules([str(path)]) if not m.name.startswith("_"))


def load_module(kind: str, package: str, name: str) -> Any:
    """Import ``package.name``; InputError lists the known names otherwise."""
    require(kind, name, module_names(package))
    return importlib.import_module(f"{package}.{name}")
