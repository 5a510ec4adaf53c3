"""Canonical JSON of the config fields that enter a run's key."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from blurdm.core.config import Section

KEY_LENGTH = 16


def excluded_from_key(section: type[Section]) -> dict[str, Any]:
    """Fields that a key may lack, with the value that they then have.

    Places (marked ``place``), which are then unknown: ""; and settings that came later (marked ``legacy_default``),
    at the value that every run had before there was a choice, so that those runs keep their keys.
    """
    marks: dict[str, Any] = {name: field.json_schema_extra or {} for name, field in section.model_fields.items()}
    legacy = {name: mark["legacy_default"] for name, mark in marks.items() if "legacy_default" in mark}
    return {name: "" for name, mark in marks.items() if mark.get("place")} | legacy


@cache
def identity(section: Any) -> Any:
    """The part of a config section (or of the seed) that enters a key, as plain JSON data."""
    if not isinstance(section, Section):
        return section
    excluded = {
        name for name, value in excluded_from_key(type(section)).items() if value in ("", getattr(section, name))
    }
    inner = {name: identity(value) for name, value in section if isinstance(value, Section) and name not in excluded}
    return section.model_dump(mode="json", exclude=excluded) | inner


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(description: Mapping[str, Any]) -> str:
    """The key of a run: the shortened sha256 of the canonical JSON of its description."""
    return hashlib.sha256(canonical_json(description).encode()).hexdigest()[:KEY_LENGTH]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
