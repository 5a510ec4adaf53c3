"""Configs that differ from one base in a few keys. Only changed sections are validated, and equal ones shared."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic import BaseModel

from blurdm.core.config import Config, Section
from blurdm.core.config_io import changed_section, section_keys
from blurdm.stages.plan import check

Keys = tuple[tuple[str, str], ...]
Shared = dict[tuple[str, Any], Any]  # (section, value) -> the one object with that value


class Variants:
    """Configs made from ``base`` by dotted settings. Equal sections of two configs are identical (same ``id``).

    This holds across several bases with the same ``shared``.
    """

    def __init__(self, base: Config, shared: Shared) -> None:
        self._unique = shared
        sections = {name: getattr(base, name) for name in section_keys()}
        self.base = base.model_copy(update={name: shared.setdefault((name, s), s) for name, s in sections.items()})
        self._sections: dict[tuple[str, str], Any] = {}
        self._accepted: dict[Keys, set[tuple[Any, ...]]] = {}

    def config(self, settings: Mapping[str, Any], source: str) -> Config:
        """``base`` with ``settings``, validated with its names looked up in registries; InputError names ``source``."""
        changes: dict[str, dict[str, Any]] = {}
        for key, value in settings.items():
            section, _, name = key.partition(".")
            changes.setdefault(section, {})[name] = value
        sections = {}
        for name, changed in changes.items():
            request = name, json.dumps(changed, sort_keys=True)
            if request not in self._sections:
                section = changed_section(self.base, name, changed, source)
                self._sections[request] = self._unique.setdefault((name, section), section)
            sections[name] = self._sections[request]
        config = self.base.model_copy(update=sections)
        # A config is valid if one with the same values of all the keys that ``check`` read was accepted before.
        if not any(_values(config, keys) in accepted for keys, accepted in self._accepted.items()):
            recorder = _ReadRecorder(config)
            check(cast(Config, recorder), source)
            keys = tuple(sorted(recorder.keys_read()))
            self._accepted.setdefault(keys, set()).add(_values(config, keys))
        return config


def _values(config: Config, keys: Keys) -> tuple[Any, ...]:
    """The values of ``keys`` (section, name); an empty name stands for the section itself, which may be null."""
    sections = ((getattr(config, section), name) for section, name in keys)
    return tuple(getattr(section, name, None) if name else section for section, name in sections)


class _ReadRecorder:
    """A config, or a section of one, that records which of its keys are read."""

    def __init__(self, model: BaseModel) -> None:
        self._model, self._read = model, dict[str, Any]()

    def __getattr__(self, name: str) -> Any:
        if name not in self._read:
            value = getattr(self._model, name)
            self._read[name] = _ReadRecorder(value) if isinstance(value, Section) else value
        return self._read[name]

    def keys_read(self) -> Iterator[tuple[str, str]]:
        for section, value in self._read.items():
            yield from ((section, name) for name in (value._read if isinstance(value, _ReadRecorder) else [""]))
