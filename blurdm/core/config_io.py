"""Reading configs: YAML 1.2 with ruamel.yaml, like DVC, dotted overrides, and validation that names the wrong key."""

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError

from blurdm.core.config import Compute, Config, Data, Section
from blurdm.core.errors import InputError
from blurdm.core.progress import Notify, say_nothing

SomeSection = TypeVar("SomeSection", bound=Section)
LARGEST_FILE = 2**20  # bytes; larger than any grid, and read within seconds
DEEPEST, MOST_VALUES, MOST_MERGED, LARGEST_NUMBER = 20, 100_000, 1000, 2**63

# Where the keys of the former section ``evaluate`` went.
RESTORED = ("foreign", "steps", "eta", "noise_seed", "tile", "tile_latent", "images_per_scene")
RENAMED = {
    **{f"evaluate.{name}": f"restore.{name}" for name in RESTORED},
    "evaluate.images_per_scene": "restore.samples_per_scene",
    "evaluate.metrics": "measure.metrics",
    "evaluate.protocol": "measure.protocol",
}


def load_config(path: Path | str, overrides: Iterable[str] = (), notify: Notify = say_nothing) -> Config:
    """Read and validate a YAML config; ``overrides`` are ``section.key=value`` in YAML. InputError names the key.

    A config of an earlier release loads as it was meant then: ``notify`` receives one line on what it does not state.
    """
    tree = read_yaml(path)
    legacy = upgrade(tree)
    for override in overrides:
        apply_override(tree, override)
    config = validate(tree, str(path))
    if legacy := [*legacy, *_unstated(tree)]:
        notify(f"{path}: written for an earlier release; read as {', '.join(legacy)}")
    return config


def upgrade(tree: dict[str, Any]) -> list[str]:
    """Move keys that an earlier release had elsewhere, in place; returns what was done, in words."""
    old = tree.get("evaluate")
    if not isinstance(old, dict) or "restore" in tree or "measure" in tree:
        return []
    del tree["evaluate"]
    tree["restore"], tree["measure"] = {"keep": "all"}, {}
    for name, value in old.items():
        section, _, key = RENAMED.get(f"evaluate.{name}", f"restore.{name}").partition(".")
        tree[section][key] = value
    return ["evaluate: restore (keep: all) and measure"]


def _unstated(tree: Mapping[str, Any]) -> list[str]:
    """Fields that ``tree`` does not state, and their legacy defaults."""
    return [
        f"{section}.{name}: {json.dumps(field.default)}"
        for section, model in (("data", Data), ("compute", Compute))
        for name, field in model.model_fields.items()
        if not field.is_required() and name not in (tree.get(section) or {})
    ]


def validate(tree: Mapping[str, Any], source: str) -> Config:
    """``tree`` as a Config; InputError names ``source``, the key, and what would be right."""
    return validate_as(Config, _with_pairs_as_data(tree, source), source)


def _with_pairs_as_data(tree: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """``data.root`` of a file is what DVC watches; that of a Config is the pairs, whether made from photos or not."""
    synthesis, data = tree.get("synthesis"), tree.get("data")
    if not (isinstance(synthesis, dict) and isinstance(data, dict)) or "photos" in synthesis or "root" not in data:
        return tree
    if not synthesis.get("pairs"):
        raise InputError(f"{source}: synthesis.pairs: missing; should be the folder that the pairs are made in")
    pairs, photos = {"root": synthesis["pairs"]}, {"photos": data["root"]}
    return {**tree, "synthesis": synthesis | photos, "data": data | pairs}


def validate_as(model: type[SomeSection], tree: Mapping[str, Any], source: str) -> SomeSection:
    """``tree`` as a ``model``; InputError as by ``validate``."""
    try:
        return model.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise InputError(f"{source}: {_explain(error, model)}") from None


def changed_section(config: Config, section: str, changes: Mapping[str, Any], source: str) -> Any:
    """The ``section`` of ``config`` with ``changes`` to its fields, validated; InputError as by ``validate``.

    As good as validating the whole, since no rule of Config joins sections; ``blurdm.stages.plan.check`` has those.
    """
    old = getattr(config, section)
    tree = (old.model_dump(mode="json") if isinstance(old, Section) else {}) | dict(changes)
    try:
        return _sections()[section].validate_json(json.dumps(tree))
    except ValidationError as error:
        raise InputError(f"{source}: {_explain(error, Config, section)}") from None


@cache
def _sections() -> dict[str, TypeAdapter[Any]]:
    types: dict[str, Any] = {name: field.annotation for name, field in Config.model_fields.items()}
    return {name: TypeAdapter(type_) for name, type_ in types.items()}


def section_keys() -> dict[str, list[str]]:
    """The names of the sections of a config, and of the keys in each."""
    return {name: _known_keys(Config, (name,)) for name in Config.model_fields if name != "seeds"}


def read_yaml(path: Path | str) -> dict[str, Any]:
    """A YAML 1.2 mapping of numbers, text, true, false, null and lists and mappings of them; InputError names the file.

    Text may be in UTF-8, or in UTF-16 with its mark.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such config file")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path}: larger than {LARGEST_FILE >> 20} MB; should be a config")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); should be a file that you may read") from None
    tree = parse_yaml(content, str(path))
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds {type(tree).__name__}, should be sections of key: value")
    return tree


class _BoundedMerges(SafeConstructor):
    """Refuses merges (``<<``) of merges of merges, which take time and memory without end."""

    def flatten_mapping(self, node: Any) -> Any:
        merged = super().flatten_mapping(node)
        if len(node.value) > MOST_MERGED:
            raise YAMLError(f"a mapping merges more than {MOST_MERGED} keys")
        return merged


def parse_yaml(content: bytes | str, source: str) -> Any:
    """The value that YAML text states, the caller's own; InputError names ``source``."""
    return deepcopy(_parsed(content, source))


@lru_cache(maxsize=64)  # reading takes 40 ms for a config, and planning reads the same ones over and over
def _parsed(content: bytes | str, source: str) -> Any:
    reader = YAML(typ="safe")
    reader.Constructor = _BoundedMerges
    try:
        value = reader.load(content)
        _require_plain(value, source)
        return value
    except RecursionError:
        raise InputError(f"{source}: nested more than {DEEPEST} levels deep") from None
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:  # the last of malformed tags
        raise InputError(f"{source}: not valid YAML ({' '.join(str(error).split())[:300]})") from None


def _require_plain(value: Any, source: str) -> None:
    """InputError for what is no plain data: dates, sets, numbers beyond 64 bits, cycles, and masses of aliases."""
    count, ahead = 0, [(value, 0)]
    while ahead:
        value, depth = ahead.pop()
        count += 1
        if depth > DEEPEST:
            raise InputError(f"{source}: nested more than {DEEPEST} levels deep")
        if count > MOST_VALUES:
            raise InputError(f"{source}: holds more than {MOST_VALUES:,} values")
        if isinstance(value, dict):
            ahead += [(part, depth + 1) for item in value.items() for part in item]
        elif isinstance(value, list):
            ahead += [(part, depth + 1) for part in value]
        elif isinstance(value, str):
            if "\0" in value.encode().decode():  # half a surrogate pair is a ValueError
                raise InputError(f"{source}: holds text with a NUL character; should have none")
        elif not isinstance(value, int | float | None):
            rule = "should be numbers, text, true, false, null or lists of them"
            raise InputError(f"{source}: holds a value of type {type(value).__name__}; {rule}")
        elif isinstance(value, int) and abs(value) >= LARGEST_NUMBER:
            raise InputError(f"{source}: holds a number beyond 64 bits; should be smaller")


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one ``section.key=value`` in ``tree``; InputError names the override."""
    name, equals, text = override.partition("=")
    parts = RENAMED.get(name, name).split(".")
    if not equals or not all(parts):
        raise InputError(f"override '{override}': should be section.key=value")
    node = tree
    for part in parts[:-1]:
        if part in node and node[part] is None:
            node[part] = {}  # a section that is null until something of it is set
        if not isinstance(node.get(part), dict):
            raise InputError(f"override '{override}': no section '{part}'; known: {', '.join(map(str, node))}")
        node = node[part]
    node[parts[-1]] = parse_yaml(text, f"override '{override[:100]}'")


def _explain(error: ValidationError, model: type[BaseModel], *within: str) -> str:
    first = error.errors(include_url=False)[0]
    # Without the names that pydantic has for the alternatives of a value, such as constrained-int.
    location = (*within, *(part for part in first["loc"] if isinstance(part, int) or part.isidentifier()))
    where = ".".join(str(part) for part in location)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key; known here: {', '.join(_known_keys(model, location[:-1]))}{more}"
    if first["type"] == "missing":
        return f"{where}: missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    value = "" if isinstance(first["input"], dict) else f": {json.dumps(first['input'])[:100]}"
    return f"{where}{value}: {message[0].lower()}{message[1:]}{more}"


def _known_keys(model: Any, location: tuple[int | str, ...]) -> list[str]:
    for part in (part for part in location if isinstance(part, str)):  # not places in a list
        annotation = model.model_fields[part].annotation
        options = getattr(annotation, "__args__", (annotation,))
        model = next(o for o in options if isinstance(o, type) and issubclass(o, Section))
    return sorted(model.model_fields)
