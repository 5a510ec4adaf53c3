"""Every figure in ``analysis.figures``, to PDF and PNG; what cannot be drawn is left out, and why is written down."""

import json
from pathlib import Path

from analysis.inputs import Inputs, Missing
from analysis.style import save, styled
from blurdm.registry import load_module, module_names
from blurdm.runs import write_bytes

PACKAGE = "analysis.figures"
INDEX = "figures.json"  # beside the figures: name, title, caption, and why one is missing


def draw_all(inputs: Inputs, folder: Path) -> dict[str, str]:
    """``folder``/<name>.pdf and .png of every figure, and INDEX; returns why a figure was left out, by name.

    A module there has TITLE, CAPTION, ORDER (its place in the report) and ``build(inputs) -> Figure``.
    """
    told, missing = [], {}
    for name in module_names(PACKAGE):
        module = load_module("figure", PACKAGE, name)
        entry = {"name": name, "title": module.TITLE, "caption": module.CAPTION, "order": module.ORDER}
        try:
            with styled():
                save(module.build(inputs), folder / name)
        except Missing as why:
            missing[name] = str(why)
            entry["missing"] = str(why)
            for suffix in (".pdf", ".png"):
                (folder / f"{name}{suffix}").unlink(missing_ok=True)  # of a result that is no more
        told.append(entry)
    told.sort(key=lambda entry: (entry["order"], entry["name"]))
    write_bytes(folder / INDEX, (json.dumps(told, indent=1, sort_keys=True) + "\n").encode())
    return missing
