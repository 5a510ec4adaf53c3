"""The papers' numbers, with source and confidence: checked when read, shown beside ours, never mixed with them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from analysis.strict import read_strict
from blurdm.core.config import Count, Positive, Section

PUBLISHED = Path(__file__).with_name("published.yaml")
METHODS = ("baseline", "blurdm")

Psnr = Annotated[float, Field(ge=10, le=60)]  # dB
Unit = Annotated[float, Field(gt=0, lt=1)]
Gain = Annotated[float, Field(gt=-5, lt=5)]


class Entry(Section):
    """``confidence``: A the paper, B official code or the method's own pages, C derived from them, D second-hand,
    E from memory.
    """

    source: Annotated[str, Field(min_length=3)]
    confidence: Annotated[tuple[Literal["A", "B", "C", "D", "E"], ...], Field(min_length=1)]

    @property
    def cited(self) -> str:
        """Source and confidence, for a note."""
        return f"{self.source} [{', '.join(self.confidence)}]"


class Dataset(Entry):
    """``protocol``: by which its published PSNR and SSIM were measured (evaluate.protocol)."""

    layout: str
    test_images: Count
    protocol: str


class Scores(Section):
    psnr: Psnr
    ssim: Unit
    lpips: Unit


class Gains(Section):
    psnr: Gain
    ssim: Gain
    lpips: Gain


class Methods(Section):
    """Scores by data set."""

    baseline: dict[str, Scores]
    blurdm: dict[str, Scores]


class Main(Entry):
    numbers: dict[str, Methods]  # by backbone


class MeanGain(Entry):
    numbers: dict[str, Gains]  # by data set


class Ablation(Entry):
    psnr: dict[str, Psnr]


class StepsRow(Section):
    prior: Literal["blurdm", "rddm"]
    steps: Count
    psnr: Psnr
    lpips: Unit


class Steps(Entry):
    rows: tuple[StepsRow, ...]


class BudgetRow(Section):
    model: Literal["baseline", "blurdm"]
    epochs: tuple[Count, ...]
    hours: Positive
    psnr: Psnr


class Budget(Entry):
    rows: tuple[BudgetRow, ...]


class Figures(Section):
    macs_g: Positive
    parameters_m: Positive
    milliseconds: Positive


class CostOf(Section):
    baseline: Figures
    blurdm: Figures


class Costs(Entry):
    numbers: dict[str, CostOf]  # by backbone


class Other(Entry):
    psnr: Psnr
    ssim: Unit
    parameters_m: Positive
    macs_g: Positive


class Published(Section):
    """All of published.yaml; ``backbones`` says which of ours is meant by a name."""

    datasets: dict[str, Dataset]
    backbones: dict[str, str]
    main: Main
    mean_gain: MeanGain
    estimators: Ablation
    prior: Ablation
    prior_realblur_j: Ablation
    stages: Ablation
    steps: Steps
    training_budget: Budget
    cost: Costs
    other_diffusion: dict[str, Other]

    @model_validator(mode="after")
    def _same_names(self) -> "Published":
        """Every backbone is known and has every data set; InputError, through the reader, says which does not fit."""
        for name, methods in self.main.numbers.items():
            for method in METHODS:
                _agree(f"main.numbers.{name}.{method}", getattr(methods, method), self.datasets)
        _agree("mean_gain.numbers", self.mean_gain.numbers, self.datasets)
        _agree("main.numbers", self.main.numbers, self.backbones.values())
        _agree("cost.numbers", self.cost.numbers, self.backbones.values())
        return self


def _agree(where: str, found: Iterable[str], expected: Iterable[str]) -> None:
    found, wanted = set(found), set(expected)
    if found != wanted:
        raise ValueError(f"{where}: has {', '.join(sorted(found))}; should have {', '.join(sorted(wanted))}")


def read_published(path: Path = PUBLISHED) -> Published:
    """InputError is one line: the file, the key, and what is wrong with it."""
    return read_strict(Published, path)
