"""The publications that an article may name, and the section that lists those that it does."""

import re
from collections.abc import Iterable

from analysis.article.facts import Facts
from analysis.article.parts import Paragraph, Part

BLURDM = "BlurDM"  # every article is about it
REFERENCES = {
    BLURDM: 'J.-T. He et al., "BlurDM: A Blur Diffusion Model for Image Deblurring", NeurIPS 2025, arXiv 2512.03979:'
    ' called "the paper" here',
    "MIMO-UNet+": "S.-J. Cho et al., ICCV 2021",
    "Stripformer": "F.-J. Tsai et al., ECCV 2022",
    "FFTformer": "L. Kong et al., CVPR 2023",
    "LoFormer-S": "X. Mao et al., ACM MM 2024",
    "NAFNet": "L. Chen et al., ECCV 2022",
    "Restormer": "S. W. Zamir et al., CVPR 2022",
    "HI-Diff": "Z. Chen et al., NeurIPS 2023",
    "RDDM": "J. Liu et al., CVPR 2024",
    "GoPro": "S. Nah et al., CVPR 2017",
    "HIDE": "Z. Shen et al., ICCV 2019",
    "RealBlur": "J. Rim et al., ECCV 2020",
    "LPIPS": "R. Zhang et al., CVPR 2018",
    "SSIM": "Z. Wang et al., IEEE Transactions on Image Processing 2004",
    "Holm": "S. Holm, Scandinavian Journal of Statistics 1979 (correction for several comparisons)",
    "Hedges": "L. V. Hedges, Journal of Educational Statistics 1981 (effect size g)",
}


def references(facts: Facts) -> list[Part]:
    """A paragraph per publication that a table of the report names, that of BlurDM first."""
    words = " ".join(_words(facts))
    named = [name for name in REFERENCES if name == BLURDM or re.search(rf"(?<!\w){re.escape(name)}(?!\w)", words)]
    return [Paragraph(f"{name}: {REFERENCES[name]}.") for name in named]


def _words(facts: Facts) -> Iterable[str]:
    yield facts.backbone
    for table in facts.contents.tables.values():
        yield table.note
        yield from (column.title for column in table.columns)
        yield from (f"{row.label} {row.group}" for row in table.rows)
