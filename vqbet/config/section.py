"""Base class of the sections of params.yaml, and bounds shared by many values.

Upper bounds are generous: a value beyond them is a typing error that would exhaust the machine.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vqbet.contract import LEAST_TEMPERATURE

C = TypeVar("C")
MOST_POSITIONS = 2**20  # observations in a batch: windows x window length
MOST_FLOP = 1e21  # per training: about ten days of one H100

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
Words = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f](?:[^\x00-\x1f]*[^\s\x00-\x1f])?$", max_length=60)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]


class Section(BaseModel):
    """Base class of all sections: frozen, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    def into(self, constructor: type[C]) -> C:
        """Return an instance of the dataclass `constructor`, filled with this section's values of the same names."""
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
    """Raise ValueError if a step has more than MOST_POSITIONS observations."""
    if window * batch > MOST_POSITIONS:
        raise ValueError(
            f"window {window} x batch {batch} are {window * batch:,} observations a step, at most {MOST_POSITIONS:,}; "
            "lower one of them"
        )


def finishes(shape: Transformer, batch: int, steps: int) -> None:
    """Raise ValueError if training the transformer would take more than MOST_FLOP operations.

    A step costs about 6 operations per weight and position, and 12 per pair of positions and channel.
    """
    weights = 12 * shape.depth * shape.width**2
    pairs = 2 * shape.depth * shape.width * shape.window
    flop = 6.0 * (weights + pairs) * shape.window * batch * steps
    if flop > MOST_FLOP:
        raise ValueError(
            f"depth {shape.depth}, width {shape.width}, window {shape.window}, batch {batch} and steps {steps} are "
            f"about {flop:.0e} operations, at most {MOST_FLOP:.0e}; lower one of them"
        )
