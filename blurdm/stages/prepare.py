"""Stage ``prepare``: the index of a data set's pairs, checked and split by scene."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from blurdm.core.arms import PrepareSections
from blurdm.core.progress import OnProgress, Progress, notify
from blurdm.core.runs import Resources
from blurdm.core.store import write_json
from blurdm.data.cache import Frames
from blurdm.data.layouts import count_report, scan
from blurdm.data.splits import build_index


def prepare(
    sections: PrepareSections, inputs: Mapping[str, Path], out: Path, resources: Resources, on_progress: OnProgress
) -> dict[str, Any]:
    """Check every pair of the data folder and split them by scene: index.json."""
    data = sections.data
    index = build_index(
        Path(data.root),
        data.layout,
        data.val_scenes,
        lambda done, total: on_progress(Progress(done, total, unit="pair")),
    )
    write_json(out / "index.json", index)
    counts = {split: sum(pair["split"] == split for pair in index["pairs"]) for split in ("train", "val", "test")}
    for split in ("train", "val"):
        if resources.cache is not None and counts[split]:
            # what every training will need; it would decode it itself
            Frames.load(index, Path(data.root), split, resources.cache, partial(notify, on_progress))
    for line in count_report(scan(Path(data.root), data.layout), data.layout):
        on_progress(Progress(1, 1, unit="pair", note=line))
    return {"metrics": {f"{split}_pairs": count for split, count in counts.items()}, "data_digest": index["digest"]}
