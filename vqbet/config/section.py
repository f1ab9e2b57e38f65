"""What every section of params.yaml has in common, and the bounds that many of its values share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Window = Annotated[int, Field(ge=1, le=512)]
Reason = Annotated[str, Field(pattern=r"\S", max_length=300)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]


class Section(BaseModel):
    """What every section has in common: frozen, strict, no unknown key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Transformer(Section):
    """The size of a transformer over a window of observations."""

    window: Window
    depth: Annotated[int, Field(ge=1, le=48)]
    heads: Count
    width: Annotated[int, Field(ge=4, le=4096)]
    dropout: Share

    @model_validator(mode="after")
    def divisible(self) -> Transformer:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self
