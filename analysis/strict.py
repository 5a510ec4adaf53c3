"""YAML files of this package, read into strict models: a wrong file is one line that names the key."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from blurdm.core.config import Section
from blurdm.core.config_io import read_yaml
from blurdm.core.errors import InputError

Model = TypeVar("Model", bound=Section)


def read_strict(model: type[Model], path: Path) -> Model:
    """``path`` as ``model``; InputError names the file, the key, what is wrong with it and how many more there are."""
    tree = read_yaml(path)
    try:
        return model.model_validate_json(json.dumps(tree))
    except TypeError as error:  # YAML knows dates
        raise InputError(f"{path}: {error}; should be numbers, text, true, false, null or lists of them") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"{part}." for part in first["loc"])[:-1]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {where}{': ' if where else ''}{message[0].lower()}{message[1:]}{more}") from None
