"""Examples of the data: blurred test images and their sharp ones."""

from matplotlib.figure import Figure

from analysis.drawing import WIDTH, Inputs, Missing, plain
from analysis.pictures import BLURRED, SHARP, bare, find, read
from blurdm.core.arms import arm_of

TITLE = "Examples of the data"
CAPTION = "The first kept test image of each of the first scenes: above blurred, below sharp."
MOST = 4


def build(inputs: Inputs) -> Figure:
    folders, rows = inputs.restored(), inputs.first[inputs.first.arm == arm_of(None)]
    chosen = []
    for scene, group in rows.groupby("scene", sort=True, observed=True):
        for image in sorted(group.image.unique()):
            blurred, sharp = (find(folders, column, str(scene), str(image)) for column in (BLURRED, SHARP))
            if blurred and sharp:
                chosen.append((f"{scene}/{image}", read(blurred), read(sharp)))
                break
    if not chosen:
        raise Missing("the restore runs kept no blurred and sharp images")
    chosen = chosen[:MOST]
    tallest = max(picture.shape[0] / picture.shape[1] for _, picture, _ in chosen)
    figure = Figure(figsize=(WIDTH, 2 * WIDTH / len(chosen) * tallest + 0.4))
    grid = figure.subplots(2, len(chosen), squeeze=False)
    for column, (name, blurred, sharp) in enumerate(chosen):
        for axes, picture in zip(grid[:, column], (blurred, sharp), strict=True):
            bare(axes)
            axes.imshow(picture)
        grid[0, column].set_title(plain(name, 24), fontsize=7)
    return figure
