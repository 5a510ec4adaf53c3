"""Configs that differ from one base in a few keys: only what changes is validated, and what is equal is one object."""

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
    """Configs made from ``base`` by dotted settings. Two with equal sections share them: compare them by ``id``.

    That holds for several bases too, if they are given the same ``shared``.
    """

    def __init__(self, base: Config, shared: Shared) -> None:
        self._unique = shared
        sections = {name: getattr(base, name) for name in section_keys()}
        self.base = base.model_copy(update={name: shared.setdefault((name, s), s) for name, s in sections.items()})
        self._made: dict[tuple[str, str], Any] = {}
        self._accepted: dict[Keys, set[tuple[Any, ...]]] = {}

    def config(self, settings: Mapping[str, Any], source: str) -> Config:
        """``base`` with ``settings``, valid in itself and by the registries; InputError names ``source``."""
        changes: dict[str, dict[str, Any]] = {}
        for key, value in settings.items():
            section, _, name = key.partition(".")
            changes.setdefault(section, {})[name] = value
        sections = {name: self._section(name, changed, source) for name, changed in changes.items()}
        config = self.base.model_copy(update=sections)
        self._check(config, source)
        return config

    def _section(self, name: str, changes: dict[str, Any], source: str) -> Any:
        request = (name, json.dumps(changes, sort_keys=True))
        if request not in self._made:
            section = changed_section(self.base, name, changes, source)
            self._made[request] = self._unique.setdefault((name, section), section)
        return self._made[request]

    def _check(self, config: Config, source: str) -> None:
        """``check``, unless it has accepted a config with the same values of all that it looked at there."""
        for looked_at, accepted in self._accepted.items():
            if _values(config, looked_at) in accepted:
                return
        watched = _Watched(config)
        check(cast(Config, watched), source)
        keys = tuple(sorted(watched.looked_at()))
        self._accepted.setdefault(keys, set()).add(_values(config, keys))


def _values(config: Config, keys: Keys) -> tuple[Any, ...]:
    """Of ``keys`` (section, name); an empty name is the section itself, one that may be null."""
    sections = ((getattr(config, section), name) for section, name in keys)
    return tuple(getattr(section, name, None) if name else section for section, name in sections)


class _Watched:
    """A config, or a section of one, that notes what of it is looked at."""

    def __init__(self, model: BaseModel) -> None:
        self._model, self._seen = model, dict[str, Any]()

    def __getattr__(self, name: str) -> Any:
        if name not in self._seen:
            value = getattr(self._model, name)
            self._seen[name] = _Watched(value) if isinstance(value, Section) else value
        return self._seen[name]

    def looked_at(self) -> Iterator[tuple[str, str]]:
        for section, watched in self._seen.items():
            yield from ((section, name) for name in (watched._seen if isinstance(watched, _Watched) else [""]))
