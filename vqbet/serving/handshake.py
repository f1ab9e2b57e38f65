"""Handshake: what a server says of its policy when a robot connects, in the metadata that openpi's clients ignore."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vqbet.contract import ServingError, Spec
from vqbet.coordinates.action_reference import Counted

PROTOCOL = 1  # raised when an older client could misread a reply
KEY = "vqbet"  # of the metadata map
LEAST_BYTES = 1 << 20  # of the cap of a frame: a key too many is then refused by its name


@dataclass(frozen=True, slots=True)
class Handshake:
    """Policy behind a server. window: T. chunk: H. execute: the bundle's rule, "first", "chunk" or "average".

    goal: observed channels whose values a robot states when an episode starts. absolute: see `policies.actor.Actor`;
    where set, planned actions are positions, and the robot computes each command from its current observation.
    limits, signals: numbers of the guard by name, one list per limit (`serving.guard`); empty where the bundle has
    none.
    """

    digest: str
    reference: str  # as named to `vqbet serve`, such as "blockpush@champion"
    spec: Spec
    window: int
    chunk: int
    execute: str
    goal: tuple[str, ...] = ()
    absolute: Counted = ()
    limits: Mapping[str, list[float]] = field(default_factory=dict)
    signals: Mapping[str, list[float]] = field(default_factory=dict)

    @property
    def frame_bytes(self) -> int:
        """Return the most bytes of a request: T observations in float64, T pictures per camera, room for the rest."""
        pictures = sum(camera.height * camera.width * 3 for camera in self.spec.cameras)
        return max(LEAST_BYTES, self.window * (8 * len(self.spec.observation) + pictures) + (1 << 16))

    def metadata(self) -> dict[str, Any]:
        """Return the metadata map: our part under KEY, and the keys that other dialects of openpi read."""
        units = {channel.unit for channel in self.spec.action}
        space = "joint" if units <= {"rad", "deg", "rad/s", "deg/s", ""} else "cartesian"
        return {
            KEY: {
                "protocol": PROTOCOL,
                "digest": self.digest,
                "reference": self.reference,
                "spec": self.spec.to_json(),
                "window": self.window,
                "chunk": self.chunk,
                "execute": self.execute,
                "goal": list(self.goal),
                "absolute": [list(each) for each in self.absolute],
                "limits": dict(self.limits),
                "signals": dict(self.signals),
                "cameras": {camera.name: list(camera.shape) for camera in self.spec.cameras},
                **({"frame_bytes": self.frame_bytes} if self.spec.cameras else {}),
            },
            "action_horizon": self.chunk,  # vLLM-Omni
            "max_action_horizon": self.chunk,
            "action_dim": len(self.spec.action),
            "image_resolution": None,  # RoboArena, as the next five
            "needs_wrist_camera": False,
            "n_external_cameras": 0,
            "needs_stereo_camera": False,
            "needs_session_id": False,
            "action_space": f"{space}_{'position' if self.spec.action_kind == 'absolute' else 'velocity'}",
        }

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Handshake:
        """Return the handshake in a server's metadata. Raises ServingError for another server, protocol or content."""
        said = metadata.get(KEY)
        if not isinstance(said, Mapping):
            raise ServingError("this server is none of vqbet: its metadata hold no handshake; start one: vqbet serve")
        if said.get("protocol") != PROTOCOL:
            raise ServingError(
                f"the server speaks protocol {said.get('protocol')!r}, this robot {PROTOCOL}; install the same version "
                "of vqbet on both"
            )
        try:
            return cls(
                digest=_text(said["digest"]),
                reference=_text(said["reference"]),
                spec=Spec.from_json(said["spec"]),
                window=_count(said["window"]),
                chunk=_count(said["chunk"]),
                execute=_text(said["execute"]),
                goal=tuple(_text(name) for name in said["goal"]),
                absolute=tuple((_text(name), float(reach)) for name, reach in said["absolute"]),
                limits={_text(name): _numbers(values) for name, values in said["limits"].items()},
                signals={_text(name): _numbers(values) for name, values in said["signals"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ServingError(f"the server's handshake is not of protocol {PROTOCOL}: {error!r}") from error


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"expected a whole number from 1, got {value!r}")
    return value


def _numbers(values: Any) -> list[float]:
    numbers = [float(value) for value in values]
    if not np.isfinite(numbers).all():
        raise ValueError("expected finite numbers")
    return numbers
