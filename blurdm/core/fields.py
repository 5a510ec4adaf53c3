"""The base of all config sections, numbers within bounds, and fields that came later."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
Pixels = Annotated[float, Field(gt=0, le=10_000)]
NonNegative = Annotated[float, Field(ge=0)]
# Bounds far above what anybody trains, so that a slip of the hand is one line and not a full memory.
Count = Annotated[int, Field(ge=1, le=10**9)]
BatchSize = Annotated[int, Field(ge=1, le=4096)]
CropSide = Annotated[int, Field(ge=16, le=16_384)]
Width = Annotated[int, Field(ge=1, le=1024)]
Depth = Annotated[int, Field(ge=1, le=1000)]
Steps = Annotated[int, Field(ge=1, le=10_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
JpegQuality = Annotated[int, Field(ge=1, le=100)]
Scale = Annotated[int, Field(ge=1, le=64)]
Level = Literal["coarse", "middle", "fine"]
Part = Literal["encoder", "estimators", "fusion", "backbone"]


def later(legacy_default: Any, description: str) -> Any:
    """A field that came after runs were made: a config without it still loads, and it stays out of keys, at the value
    that those runs had.
    """
    return Field(legacy_default, description=description, json_schema_extra={"legacy_default": legacy_default})


class Section(BaseModel):
    """Frozen, strict, no unknown keys: a typo or a wrong type is an error, never a default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
