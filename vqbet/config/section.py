"""What every section of params.yaml has in common, and the bounds that many of its values share.

Upper bounds are generous: beyond them lies no training, only a typing mistake that would end in an exhausted machine.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vqbet.contract import LEAST_TEMPERATURE

C = TypeVar("C")
MOST_POSITIONS = 2**20  # observations in a batch: windows x their length
MOST_FLOP = 1e21  # of a training: about ten days of one H100

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Steps = Annotated[int, Field(ge=1, le=100_000_000)]
Batch = Annotated[int, Field(ge=1, le=2**20)]
Width = Annotated[int, Field(ge=1, le=4096)]
Seeds = Annotated[int, Field(ge=1, le=1000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=LEAST_TEMPERATURE, le=1000, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Window = Annotated[int, Field(ge=1, le=512)]
Reason = Annotated[str, Field(pattern=r"\S", max_length=300)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]


class Section(BaseModel):
    """What every section has in common: frozen, strict, no unknown key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    def into(self, constructor: type[C]) -> C:
        """Return the dataclass `constructor` with this section's values of the same names."""
        return constructor(**{field.name: getattr(self, field.name) for field in fields(constructor)})  # type: ignore[arg-type]  # it is a dataclass


class Transformer(Section):
    """The size of a transformer over a window of observations."""

    window: Window = Field(description="Number of observations, T, that the policy sees.")
    depth: Annotated[int, Field(ge=1, le=48)] = Field(description="Number of the transformer's blocks.")
    heads: Annotated[int, Field(ge=1, le=256)] = Field(description="Number of attention heads; `width` is a multiple.")
    width: Annotated[int, Field(ge=4, le=4096)] = Field(description="Width of the transformer's features.")
    dropout: Share = Field(description="Share of the features that is dropped in training.")

    @model_validator(mode="after")
    def divisible(self) -> Transformer:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


def fits(window: int, batch: int) -> None:
    """Raises ValueError where a step has more observations than MOST_POSITIONS."""
    if window * batch > MOST_POSITIONS:
        raise ValueError(
            f"window {window} x batch {batch} are {window * batch:,} observations a step, at most {MOST_POSITIONS:,}; "
            "lower one of them"
        )


def finishes(shape: Transformer, batch: int, steps: int) -> None:
    """Raises ValueError where the transformer's training would take more than MOST_FLOP.

    A step costs about 6 operations for each weight and position, and 12 for each pair of positions and channel.
    """
    weights = 12 * shape.depth * shape.width**2
    pairs = 2 * shape.depth * shape.width * shape.window
    flop = 6.0 * (weights + pairs) * shape.window * batch * steps
    if flop > MOST_FLOP:
        raise ValueError(
            f"depth {shape.depth}, width {shape.width}, window {shape.window}, batch {batch} and steps {steps} are "
            f"about {flop:.0e} operations, at most {MOST_FLOP:.0e}; lower one of them"
        )
