"""Cameras of a simulated robot: those of its world, which may go black or freeze, and one that looks on."""

from __future__ import annotations

from typing import Protocol, cast, final

import numpy as np
from jaxtyping import UInt8

from vqbet.contract import Env, SeenEnv, ServingError
from vqbet.serving import cameras

ROW = np.zeros(1, np.int64)
SCENE = "scene"  # name of the camera that looks on, which no policy sees
MOST_PIXELS = 160  # of a side of its recorded pictures


class CameraFaults(Protocol):
    """The part of `simrobot.Faults` that is about cameras."""

    @property
    def black(self) -> float: ...

    @property
    def frozen(self) -> float: ...


@final
class SimulatedCameras:
    """Cameras of one episode. black, frozen: shares of the episodes in which the first one fails from some step on."""

    def __init__(self, env: Env, faults: CameraFaults, random: np.random.Generator) -> None:
        self._env, self._cameras = env, env.spec.cameras
        self._fails = {
            name: int(random.integers(1, max(2, env.max_steps // 4)))
            for name in ("black", "frozen")
            if (share := getattr(faults, name)) and random.random() < share
        }
        if (faults.black or faults.frozen) and not self._cameras:
            raise ServingError(f"faults black and frozen: the world of {env.spec.task!r} has no camera")
        self._last: np.ndarray | None = None

    def read(self, step: int) -> cameras.Shown:
        """Return what the world's cameras show, under the keys of an observation."""
        if not self._cameras:
            return {}
        shown = {name: each[0] for name, each in cast(SeenEnv, self._env).cameras(ROW).items()}
        first = self._cameras[0].name
        if self._last is not None and step >= self._fails.get("frozen", step + 1):
            shown[first] = self._last
        self._last = shown[first]
        if step >= self._fails.get("black", step + 1):
            shown[first] = np.zeros_like(shown[first])
        return cameras.keyed(shown)


def small(picture: UInt8[np.ndarray, "height width 3"]) -> cameras.Shown:
    """Return a picture of the camera that looks on as it is recorded, under its key."""
    every = -(-max(picture.shape[:2]) // MOST_PIXELS)
    return cameras.keyed({SCENE: picture[::every, ::every]})
