"""The one style of all figures, colours that mean the same in all of them, and how figures become files."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from blurdm.core.store import write_bytes

STYLE = Path(__file__).with_name("style.mplstyle")
WIDTH = 6.8  # inches: the text of a page

# A colour, a marker and a line belong to an arm, not to a plot.
COLORS = {
    "blurred": "#7F7F7F",
    "baseline": "#0072B2",
    "direct": "#E69F00",
    "blurdm": "#D55E00",
    "oracle": "#009E73",
    "blurdm_foreign": "#CC79A7",
    "oracle_foreign": "#56B4E9",
}
MARKS = {"blurred": "x", "baseline": "s", "direct": "D", "blurdm": "o", "oracle": "^"}
LINES = {"baseline": "-", "direct": "--", "blurdm": "-", "oracle": ":"}
PHOTO_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#7F7F7F")
PHOTO_MARKERS = "osD^vP*X"


@contextmanager
def styled() -> Iterator[None]:
    """Figures made and saved within look as STYLE says; matplotlib's settings are as before afterwards."""
    with matplotlib.rc_context(fname=STYLE):
        yield


def save(figure: Figure, path: Path) -> None:
    """``path``.png and ``path``.pdf, each by rename, without a date: the same figure gives the same bytes."""
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], metadata=metadata)
        with matplotlib.rc_context({"figure.constrained_layout.use": False}):
            figure.set_layout_engine(None)  # it takes long, and has put everything in place for both
        write_bytes(path.with_name(path.name + suffix), content.getvalue())


def photo_style(number: int) -> tuple[str, str]:
    """Colour and marker of photo number 0, 1, ..."""
    return (
        PHOTO_COLORS[number % len(PHOTO_COLORS)],
        PHOTO_MARKERS[number // len(PHOTO_COLORS) % len(PHOTO_MARKERS)],
    )


def plain(text: str) -> str:
    """Matplotlib takes what stands between dollar signs for maths."""
    return text.replace("$", r"\$")
