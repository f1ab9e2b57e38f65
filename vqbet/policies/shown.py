"""Checks of the pictures that a policy is shown. numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vqbet.contract import Camera, Pictures, Spec, WorldError


def refuse_pictures(spec: Spec, count: int, cameras: Pictures | None, *, whose: str = "") -> None:
    """Raise WorldError unless there are `count` pictures of every camera of the spec, and of no other.

    whose: beginning of the name in the message, "goal's " for pictures of a goal.
    """
    given, where = cameras or {}, f"policy for {spec.task!r}: {whose}camera"
    if unknown := sorted(given.keys() - {camera.name for camera in spec.cameras}):
        raise WorldError(f"{where} {unknown[0]!r}: expected pictures of {named(spec.cameras)}, got this one's")
    for camera in spec.cameras:
        picture, shape = given.get(camera.name), (count, *camera.shape)
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape != shape:
            got = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else "none"
            raise WorldError(
                f"{where} {camera.name!r}: expected RGB pictures, uint8 {shape} (episodes, height, width, 3), got "
                f"{got}; give them as this camera took them"
            )


def named(cameras: Sequence[Camera]) -> str:
    return ", ".join(f"{camera.name!r} ({camera.height} x {camera.width})" for camera in cameras) or "no cameras"
