"""What is known of each test image before it is restored: length of the blur, brightness, noise."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from blurdm.core.store import read_json

# Columns, with what an axis says of them.
CONDITIONS = {
    "exposure_px": "length of the blur (px)",
    "brightness": "mean of the blurred image",
    "noise": "noise of the blurred image (sd)",
}


def conditions(measured: Iterable[Path]) -> pd.DataFrame:
    """CONDITIONS of the test images of measure runs: a row per (scene, image), columns without any value left out."""
    entries: dict[tuple[str, str], dict[str, float | None]] = {}
    for folder in measured:
        key = read_json(folder / "config.json")["inputs"].get("prepare")
        index = folder.parent.parent / "prepare" / str(key) / "index.json"
        for pair in read_json(index)["pairs"] if index.is_file() else []:
            if pair["split"] == "test":
                entries[str(pair["scene"]), str(pair["name"])] = {name: pair.get(name) for name in CONDITIONS}
    index_of = pd.MultiIndex.from_tuples(list(entries), names=["scene", "image"])
    table = pd.DataFrame(list(entries.values()), index=index_of, columns=list(CONDITIONS), dtype=float)
    return table.dropna(axis="columns", how="all")
