"""The section `source` of a declared task: where its demonstrations lie, and what their fields mean."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vqbet.config.section import Name, Positive, Section
from vqbet.contract import Camera, Channel, Spec

Text = Annotated[str, Field(max_length=200)]
FieldName = Annotated[str, Field(min_length=1, max_length=200)]
Limit = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=8, le=2048)]
Format = Literal["lerobot", "replay_buffer", "hdf5", "npz", "bag"]
MOST_CHANNELS = 1000


class ChannelParams(Section):
    """One number of a field, written as [name, unit, low, high]."""

    name: FieldName
    unit: Text
    low: Limit
    high: Limit

    @model_validator(mode="before")
    @classmethod
    def listed(cls, value: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError("expected [name, unit, low, high]")
        if len(value) != 4:
            raise ValueError(f"expected [name, unit, low, high], got {len(value)} values")
        return dict(zip(("name", "unit", "low", "high"), value, strict=True))

    @model_validator(mode="after")
    def ordered(self) -> ChannelParams:
        if not self.low < self.high:
            raise ValueError(f"channel {self.name!r}: low {self.low:g} is not below high {self.high:g}")
        return self


class CameraParams(Section):
    """One camera of a declared task."""

    field: FieldName = Field(description="Field of the source that holds its pictures.")
    height: Side = Field(description="Height in px to which its pictures are scaled at ingest.")
    width: Side = Field(description="Width in px to which its pictures are scaled at ingest.")
    lossy: Text = Field(default="", description="Lossy codec of the source's pictures, such as `av1`; empty: none.")


class ResampleParams(Section):
    """Way in which the topics of a bag become steps of `control_hz`."""

    nearest: list[FieldName] = Field(
        default_factory=list,
        description="Topics of which a step takes the nearest message; of all others it holds the last one before it.",
    )
    largest_gap_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = Field(
        default=0.5, description="Most seconds between a step and the message that it takes; beyond it, ingest refuses."
    )


Channels = Annotated[list[ChannelParams], Field(min_length=1, max_length=MOST_CHANNELS)]


class SourceParams(Section):
    """Demonstrations in a foreign format, and the meaning of their fields. Read by ingest; no stage reads it."""

    path: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="Folder, file or URL of the demonstrations; a relative path begins at the project."
    )
    format: Format = Field(
        description="Format: `lerobot` (v2.1, v3.0), `replay_buffer` (Diffusion Policy's Zarr v2 or v3, or a zip), "
        "`hdf5` (robomimic, Isaac Lab), `npz` (a folder of episodes) or `bag` (ROS 2 bags, MCAP)."
    )
    control_hz: Positive = Field(description="Control steps of one second.")
    actions: Literal["absolute", "relative"] = Field(
        description="Meaning of actions: `absolute` (targets) or `relative` (a change per control step)."
    )
    frame: Text = Field(description="Reference of positions, such as `base` or `joint`; a name for people.")
    observation: Annotated[dict[FieldName, Channels], Field(min_length=1)] = Field(
        description="Fields of the source that are observed, each with its channels as [name, unit, low, high]."
    )
    action: Annotated[dict[FieldName, Channels], Field(min_length=1)] = Field(
        description="Fields of the source that are actions, each with its channels as [name, unit, low, high]."
    )
    cameras: dict[Name, CameraParams] = Field(
        default_factory=dict, description="Cameras of the task by name; none may be left out."
    )
    incomplete: Literal["refuse", "leave_out"] = Field(
        default="refuse",
        description="Episodes that lack a file of a field that is used, such as a video: `refuse` or `leave_out`.",
    )

    resample: ResampleParams | None = Field(
        default=None, description="Resampling of a bag's topics; none: every topic holds, for at most 0.5 s."
    )

    @model_validator(mode="after")
    def distinct(self) -> SourceParams:
        if self.resample is not None and self.format != "bag":
            raise ValueError(f"resample: is for the topics of a bag; the format is {self.format}")
        for side in ("observation", "action"):
            names = [channel.name for channels in getattr(self, side).values() for channel in channels]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{side}: expected each channel's name once, got {', '.join(twice)} more than once")
        return self

    def spec(self, task: str) -> Spec:
        """Return the spec that this section declares."""
        return Spec(
            task=task,
            observation=_channels(self.observation),
            action=_channels(self.action),
            control_hz=float(self.control_hz),
            action_kind=self.actions,
            frame=self.frame,
            cameras=tuple(Camera(name, one.height, one.width, one.lossy) for name, one in self.cameras.items()),
        )


def _channels(fields: dict[str, list[ChannelParams]]) -> tuple[Channel, ...]:
    return tuple(
        Channel(one.name, one.unit, float(one.low), float(one.high)) for channels in fields.values() for one in channels
    )
