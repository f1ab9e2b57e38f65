"""Section of a prior: the encoder of pictures, and the weights that it begins with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vqbet.config.section import Section


class WeightsParams(Section):
    """A file of weights that an encoder begins with, as `vqbet weights` writes it and prints its sha256."""

    file: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="Safetensors file of the network's weights, written by `vqbet weights`; a relative path begins at "
        "the project."
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="Its sha256; a file with another one is refused, so a policy names the weights that it began with."
    )


class EncoderParams(Section):
    """The encoder of pictures, one for each camera, and its augmentation."""

    kind: Literal["conv", "resnet18"] = Field(
        description="Network of each camera: `conv` (four convolutions, 0.04 M weights, trains on a laptop) or "
        "`resnet18` (with GroupNorm, 11 M weights)."
    )
    features: Annotated[int, Field(ge=1, le=4096)] = Field(
        description="Number of features, F, that stand for a picture behind the numbers of an observation."
    )
    crop: Annotated[float, Field(gt=0, le=1)] = Field(
        description="Share of a picture's sides that is seen: at a random place in training, in the middle when acting."
    )
    shift: Annotated[int, Field(ge=0, le=64)] = Field(
        description="Most pixels by which a crop is moved beyond the picture in training; its edge is repeated there."
    )
    pool: Literal["spatial_softmax", "average"] = Field(
        description="Way from maps to numbers: `spatial_softmax` (where each of `keypoints` maps has its mass) or "
        "`average` (of each map)."
    )
    keypoints: Annotated[int, Field(ge=1, le=1024)] = Field(
        description="Number of maps whose positions are taken; `average` does not read it."
    )
    weights: WeightsParams | None = Field(
        default=None, description="Weights that the networks of all cameras begin with; none: random ones."
    )
    frozen: bool = Field(
        default=False,
        description="Whether the network keeps its `weights`: the stage `features` then encodes the middle of each "
        "picture once, and the prior trains on that, without random crops. `features` and `keypoints` are not read: "
        "there are as many features as the network has maps, twice as many with `spatial_softmax`.",
    )

    @model_validator(mode="after")
    def settled(self) -> EncoderParams:
        if self.frozen and self.weights is None:
            raise ValueError("frozen, and no weights that it could keep; give weights (vqbet weights), or train it")
        if self.frozen and self.shift:
            raise ValueError(
                f"frozen, and shift {self.shift}: a picture is encoded once, so it cannot be moved anew in every step; "
                "set shift to 0"
            )
        return self
