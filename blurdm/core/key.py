"""What of a config is its identity: the part of it that keys are made of, as one text."""

import json
from collections.abc import Mapping
from typing import Any

from blurdm.core.config import Section


def unsaid(section: type[Section]) -> dict[str, Any]:
    """The fields that may be missing from a key, with the value that they then have.

    Places (marked ``place``), which are then unknown: ""; and settings that are what every run had before there was a
    choice (the value that a field is marked ``plain`` with), so that runs keep the keys that they were made under.
    """
    marks: dict[str, Any] = {name: field.json_schema_extra or {} for name, field in section.model_fields.items()}
    plain = {name: mark["plain"] for name, mark in marks.items() if "plain" in mark}
    return {name: "" for name, mark in marks.items() if mark.get("place")} | plain


def identity(section: Any) -> Any:
    """What of a config value takes part in a key, as plain JSON data: all but what is ``unsaid``."""
    if not isinstance(section, Section):
        return section
    left_out = {name for name, value in unsaid(type(section)).items() if value in ("", getattr(section, name))}
    return section.model_dump(mode="json", exclude=left_out)


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces."""
    return _CANONICAL.encode(value)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
