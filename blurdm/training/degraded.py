"""Training crops whose blurred images are degraded as a camera does it, drawn anew at every step."""

from collections.abc import Sequence

from torch import Tensor

from blurdm.core.config import Degradation
from blurdm.core.seeding import generator
from blurdm.training.crops import Crops, Cut, Request
from blurdm.training.degradation import Faults, degrade, draw_faults


class Degraded:
    """The crops of another source, with faults in the blurred ones."""

    def __init__(self, crops: Crops, section: Degradation, seed: int) -> None:
        self.crops, self.section, self.seed = crops, section, seed

    def cut(self, request: Request) -> Cut:
        cut = self.crops.cut(request)
        rows = range(request.first, request.last)
        generators = [generator(self.seed, request.purpose, request.step, "degradation", row) for row in rows]
        faults = draw_faults(self.section, (request.side, request.side), generators)
        return cut._replace(pixels=(*cut.pixels, *faults))

    def images(self, pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        count = len(Faults._fields)
        *others, blur = self.crops.images(pixels[:-count])
        return *others, degrade(blur, Faults(*pixels[-count:]))

    def lengths(self) -> tuple[float, float] | None:
        return self.crops.lengths()
