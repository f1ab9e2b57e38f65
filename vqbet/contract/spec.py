"""Spec: the interface that demonstrations, a policy and a world share: channels, cameras, rate, meaning of actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Channel:
    """One number of an observation or an action: its name, unit and physical limits (inclusive)."""

    name: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera: its name, and the size in px of its pictures, which are RGB, uint8 (height, width, 3).

    lossy: the lossy codec that the pictures passed before they were stored; "" where they are as they were taken.
    """

    name: str
    height: int
    width: int
    lossy: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.height, self.width, 3)


@dataclass(frozen=True, slots=True)
class Spec:
    """Interface that demonstrations, a policy and a world must share to be used together.

    action_kind: "absolute" (a target) or "relative" (a change per control step). frame: the reference of positions.
    cameras: one picture of each belongs to every step.
    """

    task: str
    observation: tuple[Channel, ...]  # D channels
    action: tuple[Channel, ...]  # A channels
    control_hz: float
    action_kind: Literal["absolute", "relative"]
    frame: str
    cameras: tuple[Camera, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON; without cameras it has no key for them, as before there were any."""
        value = asdict(self)
        return value if self.cameras else {key: item for key, item in value.items() if key != "cameras"}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Spec:
        """Return the spec that `to_json` wrote. Raises KeyError or TypeError for a missing or unknown key."""
        rest = {key: item for key, item in value.items() if key not in ("observation", "action", "cameras")}
        return cls(
            observation=tuple(Channel(**channel) for channel in value["observation"]),
            action=tuple(Channel(**channel) for channel in value["action"]),
            cameras=tuple(Camera(**camera) for camera in value.get("cameras", ())),
            **rest,
        )

    def differences(self, other: Spec) -> list[str]:
        """Return one sentence per difference between this spec and `other`; empty where they agree."""
        found = []
        for name in ("task", "control_hz", "action_kind", "frame"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                found.append(f"{name}: {mine!r} here, {theirs!r} there")
        for name in ("observation", "action"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if len(mine) != len(theirs):
                found.append(f"{name}: {len(mine)} channels here, {len(theirs)} there")
                continue
            for index, (one, two) in enumerate(zip(mine, theirs, strict=True)):
                if one != two:
                    found.append(f"{name}[{index}]: {one} here, {two} there")
        mine, theirs = ({camera.name: camera for camera in spec.cameras} for spec in (self, other))
        return found + [
            f"camera {name!r}: {mine.get(name, 'none')} here, {theirs.get(name, 'none')} there"
            for name in dict.fromkeys([*mine, *theirs])
            if mine.get(name) != theirs.get(name)
        ]
