"""Mirror augmentation: in a world that is mirror symmetric, each demonstration makes two.

The mirror of a task maps observations, actions and pictures, and leaves the dynamics unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float, Int, UInt8

from vqbet.contract import ConfigError, Demonstrations, Frames

Flip = Callable[[UInt8[np.ndarray, "M height width 3"]], UInt8[np.ndarray, "M height width 3"]]


class Mirrored(NamedTuple):
    """Mirror images of observations and actions; flips: of each camera, the function that mirrors its pictures."""

    observation: Float[np.ndarray, "N D"]
    action: Float[np.ndarray, "N A"]
    flips: Mapping[str, Flip] = {}


Mirror = Callable[[Demonstrations], Mirrored]


def doubled(demos: Demonstrations, mirror: Mirror) -> Demonstrations:
    """Return the demonstrations followed by the mirror image of each of them, without states.

    Raises ConfigError for cameras whose pictures the mirror does not know.
    """
    observation, action, flips = Mirrored(*mirror(demos))  # a mirror without cameras may return a plain pair
    if unknown := sorted(set(demos.cameras) - set(flips)):
        raise ConfigError(
            f"{demos.spec.task}: the view 'mirrored' is of numbers alone, and the demonstrations have pictures of "
            f"{', '.join(map(repr, unknown))}; take 'mirrored' from demos.views, or ingest without cameras"
        )
    return replace(
        demos,
        observation=np.concatenate([demos.observation, observation.astype(np.float32)]),
        action=np.concatenate([demos.action, action.astype(np.float32)]),
        time_s=np.tile(demos.time_s, 2),
        episode_ends=np.concatenate([demos.episode_ends, demos.episode_ends + len(demos.action)]),
        columns={name: np.tile(column, 2) for name, column in demos.columns.items()},
        state=None,
        intervention=None if demos.intervention is None else np.tile(demos.intervention, 2),
        cameras={name: Doubled(frames, flips[name]) for name, frames in demos.cameras.items()},
    )


@final
class Doubled:
    """Pictures followed by the mirror image of each, which is made when it is asked for."""

    def __init__(self, frames: Frames, flip: Flip) -> None:
        self._frames, self._flip, self._count = frames, flip, frames.shape[0]
        self.shape = (2 * self._count, *frames.shape[1:])

    def __getitem__(self, steps: Int[np.ndarray, "*B"]) -> UInt8[np.ndarray, "*B height width 3"]:
        found = self._frames[steps % self._count]
        if (steps >= 2 * self._count).any() or (steps < 0).any():
            raise IndexError(f"expected steps from 0 to {2 * self._count - 1}, got {steps.min()} to {steps.max()}")
        flipped = steps >= self._count
        found[flipped] = self._flip(found[flipped])
        return found
