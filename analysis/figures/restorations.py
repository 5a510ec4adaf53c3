"""Restorations side by side: a few test photos, each with the same crop enlarged in every column, and their errors."""

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.drawing import Inputs, Missing
from analysis.pictures import BLURRED, COLUMNS, SHARP, Pictured, bare, draw_row, first_of_each, title, worst_crop

TITLE = "Restorations"
CAPTION = (
    "The first kept test image of each of the first photos, restored with the first seed, with its PSNR. The frame"
    " is the square in which the blur does most harm, enlarged in the corner. Below every picture is its error: the"
    " root of the mean over channels of the squared difference to the sharp image, on one scale for all."
)
MOST = 3
CLIP = 0.2  # errors above are drawn alike


def build(inputs: Inputs) -> Figure:
    chosen = first_of_each(inputs.first, inputs.restored(), MOST)
    if not chosen:
        raise Missing(f"the restore runs kept no image in all of: {', '.join(COLUMNS)}")
    return restorations(chosen)


def restorations(rows: list[Pictured]) -> Figure:
    """Two lines per image, pictures and errors, and a column per method."""
    width = 2.0
    heights = [width * row.pictures[SHARP].shape[0] / row.pictures[SHARP].shape[1] + 0.25 for row in rows]
    lines = [line for height in heights for line in (height, height - 0.2)]
    figure = Figure(figsize=(width * len(COLUMNS), sum(lines) + 0.5))
    grid = figure.subplots(len(lines), len(COLUMNS), squeeze=False, height_ratios=lines)
    scale = Normalize(0, CLIP)
    for number, row in enumerate(rows):
        above, below = grid[2 * number], grid[2 * number + 1]
        draw_row(above, row, worst_crop(row.error(BLURRED) ** 2))
        for axes, column in zip(below, COLUMNS, strict=True):
            bare(axes)
            if column != SHARP:
                axes.imshow(row.error(column), norm=scale)
        below[0].set_ylabel("error", fontsize=10)
    for axes, column in zip(grid[0], COLUMNS, strict=True):
        axes.set_title(title(column))
    bar = grid[1][-1].inset_axes((0.05, 0.45, 0.9, 0.08))
    figure.colorbar(ScalarMappable(scale), cax=bar, orientation="horizontal", extend="max", label="error")
    return figure
