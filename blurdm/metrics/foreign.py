"""Any metric of pyiqa as ``pyiqa:NAME``: what pyiqa states of it, read without importing pyiqa (which loads torch)."""

import importlib.util
import math
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from blurdm.core.errors import InputError

PREFIX = "pyiqa:"
OF_SETS = {"FID", "InceptionScore"}  # types of metrics that compare sets of images, and have no value of one
OPEN = 100.0  # extent of a range without an end
LIKELY = 5  # near names that an error lists


@cache
def pyiqa_configs() -> Mapping[str, Mapping[str, Any]]:
    """pyiqa's own table of metrics: type, mode (FR, NR), direction, range of scores. InputError without pyiqa."""
    package = importlib.util.find_spec("pyiqa")
    if package is None or not package.submodule_search_locations:
        raise InputError("metrics called pyiqa:NAME need pyiqa: pip install 'blurdm[metrics]'")
    path = Path(package.submodule_search_locations[0]) / "default_model_configs.py"
    spec = importlib.util.spec_from_file_location("pyiqa_configs", path)
    assert spec is not None and spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    configs: Mapping[str, Mapping[str, Any]] = table.DEFAULT_CONFIGS
    return configs


def pyiqa_config(metric: str) -> Mapping[str, Any]:
    """What pyiqa states of ``metric`` (``pyiqa:NAME``); InputError names near ones, or says that it is of sets."""
    name, configs = metric.removeprefix(PREFIX), pyiqa_configs()
    if name not in configs:
        near = get_close_matches(name, configs, n=LIKELY, cutoff=0.5)
        advice = f"; near: {', '.join(PREFIX + other for other in near)}" if near else "; pyiqa models lists them"
        raise InputError(f"metric '{metric}' is not one of pyiqa's {len(configs)}{advice}")
    config = configs[name]
    if config["metric_opts"]["type"] in OF_SETS:
        raise InputError(f"metric '{metric}' compares sets of images; should be one with a value for each image")
    return config


def digits_of(score_range: str | None) -> int:
    """Decimals in tables that suit a range such as ``~0, ~100``: about four digits of a usual value."""
    bounds = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", (score_range or "").partition(";")[0])]
    extent = bounds[1] - bounds[0] if len(bounds) == 2 else OPEN
    return max(1, 4 - math.ceil(math.log10(max(extent, 1.0))))
