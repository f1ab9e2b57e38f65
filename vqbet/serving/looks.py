"""Observations of one control step as a robot's driver returns them: the state, and a picture of each camera."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vqbet.contract import ServingError, Spec
from vqbet.serving import cameras
from vqbet.serving.cameras import Shown

Observation = Mapping[str, np.ndarray]  # "state" (D,), and "camera/<name>" (height, width, 3) of each camera


class Glance(NamedTuple):
    """State and pictures of one control step, copied. shown: the same object wherever the look is repeated."""

    state: Float[np.ndarray, " D"]
    shown: Shown  # by camera of the spec


def mapping(observation: Observation | np.ndarray) -> Observation:
    """Return an observation as a mapping; an array alone is the state."""
    return observation if isinstance(observation, Mapping) else {"state": np.asarray(observation)}


def looked(spec: Spec, seen: Observation) -> Glance:
    """Return state and pictures of the spec's cameras; a driver may fill its arrays again. Other cameras are left out.

    Raises ServingError, naming state or camera, for another shape or type.
    """
    state = np.asarray(seen.get("state"))
    if state.shape != (len(spec.observation),) or state.dtype.kind not in "fiu":
        raise ServingError(
            f"state: expected {len(spec.observation)} real numbers, got {state.dtype} of shape {state.shape}"
        )
    named = {camera.name: seen.get(cameras.KEY + camera.name) for camera in spec.cameras}
    shown = {name: picture.copy() for name, picture in cameras.checked(spec.cameras, named).items()}
    return Glance(state.astype(np.float32), shown)
