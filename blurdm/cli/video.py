"""``blurdm data video``: pairs from high-speed clips."""

import argparse
import shlex
from pathlib import Path

from blurdm.core.command import Parser, odd_range, pixels, require_folder_to_write, seed, whole


def add_video(data: "argparse._SubParsersAction[Parser]") -> None:
    """Add the command to those of ``blurdm data``."""
    video = data.add_parser("video", help="make pairs from high-speed clips as GoPro was made, in its layout")
    video.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="its name without suffix names the scene")
    video.add_argument("--target", type=Path, default=Path("data/video"), help="folder of the pairs (%(default)s)")
    video.add_argument(
        "--test", action="append", default=[], metavar="SCENE", help="a clip of the test set; may be repeated"
    )
    video.add_argument(
        "--frames",
        type=odd_range,
        default="7-13",
        metavar="LOW-HIGH",
        help="consecutive ones in a mean, an odd number drawn for each (%(default)s)",
    )
    video.add_argument(
        "--stride",
        type=whole(1, 1_000_000),
        metavar="N",
        help="frames from the start of a pair to that of the next (default: none in two)",
    )
    video.add_argument(
        "--max-motion",
        type=pixels,
        default=1.0,
        metavar="PX",
        help="from a frame to the next; beyond, the blur has stripes (%(default)s)",
    )
    video.add_argument(
        "--too-fast",
        choices=["skip", "interpolate", "refuse"],
        default="skip",
        help="what is done where it moves more: left out (default), frames put in between, an error",
    )
    video.add_argument("--keep-static", action="store_true", help="keep pairs in which nothing moves by a pixel")
    video.add_argument(
        "--gamma", choices=["srgb", "none"], default="srgb", help="none: a mean of coded values, as GoPro's blur/ is"
    )
    video.add_argument("--scale", type=whole(1, 16), default=1, metavar="N", help="make frames N times smaller first")
    video.add_argument("--seed", type=seed, default=0, help="of the numbers of frames (%(default)s)")
    video.set_defaults(command=make)


def make(parsed: argparse.Namespace) -> int:
    """Make the pairs, and say what comes next."""
    from blurdm.cli.display import counter
    from blurdm.data.video.pairs import make_video_pairs
    from blurdm.data.video.windows import Cutting

    require_folder_to_write("--target", parsed.target)
    cutting = Cutting(
        parsed.frames,
        parsed.stride,
        parsed.max_motion,
        parsed.too_fast,
        parsed.keep_static,
        parsed.gamma,
        parsed.scale,
        parsed.seed,
    )
    with counter("frame") as on_progress:
        made = make_video_pairs(parsed.clips, parsed.test, cutting, parsed.target, on_progress, print)
    print(f"{parsed.target}: {'pairs made' if made else 'has these pairs already'}")
    if not parsed.test:
        print("no clip is for testing; --test SCENE names one")
    place = shlex.quote(f"data.root={parsed.target}")
    print(f"next: blurdm data check --set synthesis=null --set data.layout=gopro --set data.val_scenes=1 --set {place}")
    return 0
