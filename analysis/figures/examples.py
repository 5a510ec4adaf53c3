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
            files = [find(folders, column, str(scene), str(image)) for column in (BLURRED, SHARP)]
            pictures = [read(file) for file in files if file]
            if len(pictures) == len(files):
                chosen.append((f"{scene}/{image}", pictures))
                break
    if not chosen:
        raise Missing("the restore runs kept no blurred and sharp images")
    chosen = chosen[:MOST]
    tallest = max(pictures[0].shape[0] / pictures[0].shape[1] for _, pictures in chosen)
    figure = Figure(figsize=(WIDTH, 2 * WIDTH / len(chosen) * tallest + 0.4))
    grid = figure.subplots(2, len(chosen), squeeze=False)
    for column, (name, pictures) in enumerate(chosen):
        for axes, picture in zip(grid[:, column], pictures, strict=True):
            bare(axes)
            axes.imshow(picture)
        grid[0, column].set_title(plain(name, 24), fontsize=7)
    return figure
