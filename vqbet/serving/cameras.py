"""Pictures between robot and policy: those of the policy's cameras, checked before anything is computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vqbet.contract import Camera, ServingError
from vqbet.files import reading

KEY = "camera/"  # before a camera's name, in a request, an observation and a recording

Shown = dict[str, UInt8[np.ndarray, "*M height width 3"]]  # by the name of the camera


def given(observation: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an observation or request holds under the keys of cameras, by their names."""
    return {name.removeprefix(KEY): value for name, value in observation.items() if name.startswith(KEY)}


def keyed(pictures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return pictures under the keys of cameras."""
    return {KEY + name: each for name, each in pictures.items()}


def checked(cameras: Sequence[Camera], pictures: Mapping[str, Any], *, lead: tuple[int, ...] = ()) -> Shown:
    """Return the pictures of all cameras, in their order: uint8 (*lead, height, width, 3), RGB.

    Raises ServingError, naming camera, expectation and what came, unless there is exactly that for each.
    """
    named = {camera.name: camera for camera in cameras}
    if unknown := next((name for name in pictures if name not in named), None):
        raise ServingError(
            f"{reading.short(KEY + unknown)}: this policy sees no such camera; it sees {', '.join(named) or 'none'}"
        )
    for name, camera in named.items():
        picture, shape = pictures.get(name), (*lead, *camera.shape)
        if type(picture) is not np.ndarray or picture.dtype != np.uint8 or picture.shape != shape:
            raise ServingError(f"{KEY}{name}: expected uint8 of shape {shape}, RGB, got {_described(picture, shape)}")
    return {name: pictures[name] for name in named}


def _described(picture: Any, shape: tuple[int, ...]) -> str:
    if picture is None:
        return "none; send one of every camera of the policy"
    if not isinstance(picture, np.ndarray):
        return type(picture).__name__
    found = f"{picture.dtype} of shape {picture.shape}"
    if picture.dtype == np.uint8 and picture.shape == (*shape[:-3], 3, *shape[-3:-1]):
        return f"{found}: its channels come first; move them last"
    return found
