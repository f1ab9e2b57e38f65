"""Goal frame: points in a plane, translated and rotated so that the goal always lies at the same place.

If the dynamics of a world are invariant to translation and rotation, a policy that knows one goal can reach every
goal. The frame loses the edges of the world, which lie elsewhere in every frame.

People stop when a scene looks done. In such a world every demonstration is a perfect demonstration of reaching its own
final pose. In the frame of this pose (`framed`) each demonstration ends exactly at the goal. A policy trained on them,
acting in the frame of a goal, reaches goals that it has never seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from vqbet.contract import ConfigError, Demonstrations

Points = Float[np.ndarray, "E *N xy"]  # xy: channels that come in pairs, x before y


@dataclass(frozen=True, slots=True)
class Motion:
    """One rigid motion per episode: a rotation about `start`, which is moved to `end`. float64."""

    cosine: Float[np.ndarray, " E"]
    sine: Float[np.ndarray, " E"]
    start: Float[np.ndarray, "E 2"]
    end: Float[np.ndarray, " 2"]

    def __getitem__(self, rows: np.ndarray) -> Motion:
        return Motion(self.cosine[rows], self.sine[rows], self.start[rows], self.end)

    def there(self, points: Points) -> Points:
        """Return the points in the frame of their episode's goal."""
        return self._turned(points, self.sine, self.start, self.end[None])

    def back(self, points: Points) -> Points:
        """Return the points in the frame of the world; the inverse of `there`."""
        return self._turned(points, -self.sine, self.end[None], self.start)

    def _turned(self, points: Points, sine: np.ndarray, start: np.ndarray, end: np.ndarray) -> Points:
        """Transform element by element, so that the numbers of an episode do not depend on the number of episodes."""
        lone = (slice(None), *[None] * (points.ndim - 1))
        x, y = points[..., 0::2] - start[:, 0][lone], points[..., 1::2] - start[:, 1][lone]
        cosine, sine = self.cosine[lone], sine[lone]
        moved = np.empty(points.shape)
        moved[..., 0::2] = cosine * x - sine * y + end[:, 0][lone]
        moved[..., 1::2] = sine * x + cosine * y + end[:, 1][lone]
        return moved.astype(points.dtype)


def onto(goals: Float[np.ndarray, "E C"], reference: Float[np.ndarray, " C"]) -> Motion:
    """Return the rigid motions that bring each goal's points nearest to those of the reference, in least squares.

    In the plane the best rotation has a closed form (Procrustes). Goals all of whose points coincide are not rotated.
    """
    there = reference.astype(np.float64)
    end = np.array([np.mean(there[0::2]), np.mean(there[1::2])])
    start, along, across = np.zeros((len(goals), 2)), np.zeros(len(goals)), np.zeros(len(goals))
    points = goals.astype(np.float64)
    for axis in (0, 1):
        for place in range(axis, len(there), 2):  # one by one: the order of a sum must not depend on E
            start[:, axis] += points[:, place] / (len(there) // 2)
    for place in range(0, len(there), 2):
        x, y = points[:, place] - start[:, 0], points[:, place + 1] - start[:, 1]
        to_x, to_y = there[place] - end[0], there[place + 1] - end[1]
        along += x * to_x + y * to_y
        across += x * to_y - y * to_x
    size = np.hypot(along, across)
    still = size == 0
    size[still], along[still] = 1.0, 1.0
    return Motion(along / size, across / size, start, end)


def reached(demos: Demonstrations, goal: Sequence[str], reference: Sequence[float]) -> Motion:
    """Return the motion of each episode that brings its final pose onto the reference.

    goal: the observed channels that make a goal, x before y. reference: their values at the world's own goal.
    """
    names = [channel.name for channel in demos.spec.observation]
    places = demos.observation[demos.episode_ends - 1][:, [names.index(name) for name in goal]]
    return onto(places, np.array(reference))


def framed(demos: Demonstrations, goal: Sequence[str], reference: Sequence[float]) -> Demonstrations:
    """Return each demonstration in the frame of its own final pose (see `reached`), without states.

    Raises ConfigError for demonstrations with cameras: a turned picture is not what the camera would see.
    """
    if demos.cameras:
        raise ConfigError(
            f"{demos.spec.task}: the view 'goal_frame' is of numbers alone, and the demonstrations have pictures of "
            f"{', '.join(map(repr, demos.cameras))}; take 'goal_frame' from demos.views, or ingest without cameras"
        )
    steps = reached(demos, goal, reference)[np.repeat(np.arange(len(demos.lengths)), demos.lengths)]
    return replace(demos, observation=steps.there(demos.observation), action=steps.there(demos.action), state=None)
