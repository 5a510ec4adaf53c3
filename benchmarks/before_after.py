"""Pictures of what the included model does to photos that it has not seen: python -m benchmarks.before_after.

Writes docs/images/model.jpg: from left to right blurred, restored and sharp; a row each of seven of its test photos by
what they gain in photos.json: the best, at four more even steps, and the two worst. Of a photo's images it is the one
that gains most nearly what the photo gains. So nothing is chosen by eye.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.classical import psnr
from benchmarks.pretrained import BLURRED, PRESET, Tested, images, in_band, make_pairs
from blurdm.core.command import Parser, run_command
from blurdm.core.config_io import load_config
from blurdm.core.store import read_json
from blurdm.restore.loading import load
from blurdm.restore.models import DEFAULT, INSTALLED

PICTURE = Path("docs/images/model.jpg")
WINDOW = 192, 256  # height and width of a picture, px
CAPTION = 18  # px
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)  # of the photos gain more; and the two worst


def main() -> None:
    parser = Parser(description=__doc__)
    parser.parse_args()
    make_pairs()
    gains = read_json(INSTALLED / f"{DEFAULT}.json")["gain_by_photo"]
    tests = [test for test in images(Path(load_config(PRESET).data.root), "blur") if in_band(test, BLURRED)]
    restorer, scenes = load(), chosen(gains)
    rows = []
    for scene in scenes:
        both = [(test, restorer.restore(test.pixels)) for test in tests if test.scene == scene]
        rows.append(row(*min(both, key=lambda pair: abs(gain_of(*pair) - gains[scene]))))
    PICTURE.parent.mkdir(exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(PICTURE, quality=88, optimize=True)
    print(PICTURE, *scenes, sep="\n")


def chosen(gains: Mapping[str, float]) -> list[str]:
    """Photos from the one with the largest gain in even steps, and the two with the smallest."""
    by_gain = sorted(gains, key=gains.__getitem__, reverse=True)
    return [by_gain[int(share * len(by_gain))] for share in SHARES] + by_gain[-2:]


def row(test: Tested, restored: np.ndarray) -> np.ndarray:
    """Three pictures side by side below their caption, uint8 (CAPTION + height, 3 width, 3)."""
    strip = Image.new("RGB", (3 * WINDOW[1], CAPTION + WINDOW[0]), "white")
    kinds = {"blurred": test.pixels, "restored": restored, "sharp": test.sharp}
    for column, (kind, pixels) in enumerate(kinds.items()):
        text = f"{test.scene.replace('_', ' ')}, {test.length_px:.0f} px" if kind == "blurred" else kind
        if kind != "sharp":
            text += f": {psnr(pixels, test.sharp):.1f} dB"
        ImageDraw.Draw(strip).text((column * WINDOW[1] + 4, 3), text, "black")
        strip.paste(Image.fromarray(pixels), (column * WINDOW[1], CAPTION))
    return np.asarray(strip)


def gain_of(test: Tested, restored: np.ndarray) -> float:
    return psnr(restored, test.sharp) - psnr(test.pixels, test.sharp)


if __name__ == "__main__":
    sys.exit(run_command("before_after", main))
