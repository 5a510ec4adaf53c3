"""The fonts of figures, and of the PDF's letters beyond Latin: one that comes with matplotlib, and one of Debian's."""

from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.font_manager import findSystemFonts, fontManager, get_font

BUNDLED = "fonts/ttf/DejaVuSans.ttf"
INSTALLED = "DroidSansFallbackFull.ttf"  # Chinese, Japanese and Korean
PACKAGE = "fonts-droid-fallback"


@cache
def fonts() -> dict[str, Path]:
    """File by family, the first choice first."""
    files = [matplotlib.get_data_path() + f"/{BUNDLED}", *(p for p in findSystemFonts() if Path(p).name == INSTALLED)]
    families = {get_font(file).family_name: Path(file) for file in files[:2]}
    for family, file in families.items():
        if family not in {entry.name for entry in fontManager.ttflist}:
            fontManager.addfont(file)
    return families


def families() -> list[str]:
    """For ``font.family`` of matplotlib, which searches them letter by letter."""
    return list(fonts())


@cache
def font_of(letter: str) -> Path | None:
    """The first font that has ``letter``."""
    return next((file for file in fonts().values() if ord(letter) in _letters(file)), None)


@cache
def _letters(file: Path) -> frozenset[int]:
    return frozenset(get_font(file).get_charmap())
