"""Every figure in ``analysis.figures``, to PDF and PNG; what cannot be drawn is left out, and why is written down."""

import json
from collections.abc import Iterable
from pathlib import Path

from analysis.inputs import Inputs, Missing
from analysis.style import save, styled
from blurdm.core.registry import load_module
from blurdm.core.store import write_bytes

PACKAGE = "analysis.figures"
INDEX = "figures.json"  # beside the figures: name, title, caption, and why one is missing


def draw_all(names: Iterable[str], inputs: Inputs, folder: Path) -> dict[str, str]:
    """``folder``/<name>.pdf and .png of the figures with these names, and INDEX; returns by name why one was left out.

    A module of PACKAGE has TITLE, CAPTION and ``build(inputs) -> Figure``. What is no figure any more is deleted.
    """
    told, missing = [], {}
    for name in names:
        module = load_module("figure", PACKAGE, name)
        entry = {"name": name, "title": module.TITLE, "caption": module.CAPTION}
        try:
            with styled():
                save(module.build(inputs), folder / name)
        except Missing as why:
            missing[name] = str(why)
            entry["missing"] = str(why)
        told.append(entry)
    drawn = {entry["name"] for entry in told} - set(missing)
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.suffix in (".pdf", ".png") and file.stem not in drawn:
            file.unlink()
    write_bytes(folder / INDEX, (json.dumps(told, indent=1, sort_keys=True) + "\n").encode())
    return missing
