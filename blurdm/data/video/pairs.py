"""Pairs from clips, as GoPro was made: the mean of consecutive frames is blurred, and the middle one is sharp."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from blurdm.core.errors import InputError
from blurdm.core.made_folder import MadeFolder
from blurdm.core.progress import Notify, say_nothing
from blurdm.core.store import write_bytes
from blurdm.data.blur.formation import PAIR_FILES
from blurdm.data.pairs import write_image
from blurdm.data.splits import MANIFEST, Progress
from blurdm.data.video.clips import Clip, frames, read_clips
from blurdm.data.video.windows import Cutting, Window, windows

VERSION = 1  # raised when the same settings make other pixels
SETTINGS = "video.json"
COLUMNS = (
    *("split", "scene", "name", "clip", "clip_sha256", "first_frame", "frames", "subframes"),
    *("motion_px", "length_px"),
)


def make_video_pairs(
    paths: Sequence[Path],
    test: Collection[str],
    cutting: Cutting,
    target: Path,
    on_progress: Progress | None = None,
    notify: Notify = say_nothing,
) -> bool:
    """Make {train,test}/<clip>/{blur,sharp}/<middle frame>.png and manifest.csv in ``target``; False if already there.

    ``test`` names clips without suffix. ``on_progress`` counts frames; ``notify`` gets a line per clip. The data set
    appears at once, by rename. InputError for what is no clip, a split without pairs, or a folder of something else.
    """
    clips = read_clips(paths, test)
    # all that the pixels depend on: the content of the clips, not their folders
    known = {"clips": {clip.path.name: clip.sha256 for clip in clips}, "test": sorted(set(test))}
    settings = json.dumps({"version": VERSION, **asdict(cutting), **known}, indent=1, sort_keys=True)
    pairs = MadeFolder("clips", SETTINGS, PAIR_FILES)
    return pairs.make(target, settings, lambda folder: _write_clips(clips, cutting, folder, on_progress, notify))


def _write_clips(
    clips: Sequence[Clip], cutting: Cutting, folder: Path, on_progress: Progress | None, notify: Notify
) -> None:
    """Write pairs and manifest. A clip without pairs is left out, unless there is no other one of its split."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    given: set[str] = set()  # splits with pairs
    for index, clip in enumerate(clips):
        before, total = sum(clip.stated for clip in clips[:index]), sum(clip.stated for clip in clips)
        rows: list[tuple[object, ...]] = []
        left_out: list[tuple[str, float]] = []  # fault, motion
        for window in windows(frames(clip.path, cutting.scale), clip.scene, cutting):
            if fault := window.fault(cutting):
                left_out.append((fault, window.motion))
            else:
                rows.append(_write_pair(clip, window, cutting, folder))
            if on_progress:
                on_progress(before + window.first + len(window.frames), total)
            if fault == "too fast" and cutting.too_fast == "refuse":
                raise InputError(f"{clip.path}: {_remedy(clip, left_out, cutting)}")
        if rows:
            writer.writerows(rows)
            given.add(clip.split)
            counts = Counter(fault for fault, _ in left_out)
            without = ", ".join(f"{count} {fault}" for fault, count in counts.items())
            notify(f"{clip.path.name}: {len(rows)} {clip.split} pairs" + (f"; left out: {without}" if without else ""))
        elif clip.split in given | {other.split for other in clips[index + 1 :]}:
            notify(f"{clip.path.name}: no pairs; {_remedy(clip, left_out, cutting)}")
        else:
            raise InputError(f"{clip.path}: {_remedy(clip, left_out, cutting)}")
    write_bytes(folder / MANIFEST, table.getvalue().encode())


def _write_pair(clip: Clip, window: Window, cutting: Cutting, folder: Path) -> tuple[object, ...]:
    """Write the images of a pair; returns its row of the manifest."""
    parts = window.parts(cutting.max_motion)
    name = f"{window.middle:06d}"
    sharp = window.frames[len(window.frames) // 2]
    for kind, pixels in (("blur", window.expose(parts, cutting.gamma)), ("sharp", sharp)):
        write_image(folder / clip.split / clip.scene / kind / f"{name}.png", pixels)
    numbers = (window.first, len(window.frames), len(window.steps) * parts + 1)
    measured = (f"{window.motion:.4f}", f"{window.length(parts):.4f}")
    return (clip.split, clip.scene, name, clip.path.name, clip.sha256, *numbers, *measured)


def _remedy(clip: Clip, left_out: Sequence[tuple[str, float]], cutting: Cutting) -> str:
    """Why a clip gives no pairs, by the fault and the motion of windows that were left out, and what would help."""
    if not left_out:
        return f"has not the {cutting.number(clip.scene, 0)} frames of a window; should have more, or --frames fewer"
    motion = sorted(motion for fault, motion in left_out if fault == "too fast")
    faults = Counter(fault for fault, _ in left_out)
    if motion and (cutting.too_fast == "refuse" or len(motion) == max(faults.values())):
        typical = motion[len(motion) // 2]
        times = math.ceil(typical / cutting.max_motion)
        ways = [f"record {times} times as many frames per second", f"--scale {times * cutting.scale}"]
        ways += [] if cutting.too_fast == "interpolate" else ["--too-fast interpolate"]
        limit = f"{cutting.max_motion:g} at most"
        return f"moves {typical:.1f} px from frame to frame; should be {limit}: {', or '.join(ways)}"
    if faults["cut"] == max(faults.values()):
        return f"a cut or a flash in {faults['cut']} of {len(left_out)} windows; should show one scene without cuts"
    if faults["repeated frame"] == max(faults.values()):
        return "frames are repeated; should be as the camera wrote it, not converted to another frame rate"
    return "nothing moves; should be recorded with a moving camera (--keep-static keeps such windows)"
