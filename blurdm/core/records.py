"""What the JSON files of runs and sweeps hold: the types of their entries, by file name.

An entry that a file lacks is an InputError where it is read (``JsonObject``), one of a wrong type where the file is.
"""

from functools import cache
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import AfterValidator, PositiveInt, TypeAdapter, ValidationError

from blurdm.core.errors import InputError


def _inside(text: str) -> str:
    """``text``, which becomes part of a path below a folder; ValueError if it would lead out of it."""
    if PurePath(text).is_absolute() or ".." in PurePath(text).parts or "\0" in text:
        raise ValueError("leads out of its folder")
    return text


TEXTS = dict[str, str]
INSIDE = Annotated[str, AfterValidator(_inside)]
TYPES: dict[str, dict[str, Any]] = {
    "config.json": {"stage": str, "sections": dict[str, dict[str, Any] | int], "inputs": TEXTS, "code": str},
    "result.json": {
        **dict.fromkeys(("stage", "key", "protocol", "weights_sha256", "images_sha256", "per_image_sha256"), str),
        "seconds": float,
        "iterations": int | None,
        "metrics": dict[str, float | None],
        "arms": list[str],
        "cost": dict[str, dict[str, Any]],
    },
    "provenance.json": {"device": str, "packages": TEXTS, "hardware": dict[str, Any], "code": TEXTS},
    "index.json": {"pairs": list[dict[str, INSIDE | float | None]], "digest": str},
    "progress.json": {
        **dict.fromkeys(("unit", "note", "host"), str),
        **dict.fromkeys(("step", "total", "pid"), int),
        "numbers": dict[str, float],
        "time": float,
    },
    "driver.json": {"pid": PositiveInt, "host": str},  # 0 and less are groups of processes
    "jobs.json": {"jobs": dict[str, TEXTS]},
}


class JsonObject(dict[str, Any]):
    """An object of a JSON file; InputError names an entry that it lacks."""

    def __init__(self, values: dict[str, Any], source: str) -> None:
        super().__init__(values)
        self.source = source

    def __missing__(self, key: str) -> Any:
        raise InputError(f"{self.source}: lacks '{key}'; delete it to have it made again")


def check_types(path: Path, value: dict[str, Any]) -> None:
    """InputError names the entry of ``value``, the content of the file ``path``, that should be of another type."""
    for name in TYPES.get(path.name, {}).keys() & value.keys():
        try:
            _adapter(path.name, name).validate_python(value[name], strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in (name, *first["loc"]))
            raise InputError(f"{path}: {where}: {first['msg']}; delete it to have it made again") from None


@cache
def _adapter(file: str, name: str) -> TypeAdapter[Any]:
    return TypeAdapter(TYPES[file][name])
