"""What each row of a grid is compared with: one row for all, or one for each value of a dimension."""

from collections.abc import Sequence

from blurdm.core.registry import require
from experiments.grid_file import REFERENCE, Choice, GridFile


def row_name(combination: Sequence[Choice]) -> str:
    """The name of the row of these choices."""
    return ", ".join(choice.label for choice in combination)


def compared_with(file: GridFile, dimensions: Sequence[Sequence[Choice]], row: Sequence[Choice]) -> tuple[str, str]:
    """The reference of the row of these choices, and its contrast."""
    arm = row[0]
    if REFERENCE in arm.settings:
        require(f"{arm.where}: {REFERENCE}:", arm.settings[REFERENCE], file.arms)
        other = next(choice for choice in dimensions[0] if choice.label == arm.settings[REFERENCE])
        return row_name([other, *row[1:]]), arm.label if len(row) > 1 else ""
    if isinstance(file.baseline, str):
        return file.baseline, ""
    shared = file.baseline.dimensions
    first = [c if c.dimension in shared else values[0] for c, values in zip(row, dimensions, strict=True)]
    return row_name(first), row_name([choice for choice in row if choice.dimension not in shared])
