"""Demonstrations in the frame of what they reached: moved and turned so that each of them ends exactly at its goal.

People stop when a scene looks done. Where a world looks the same moved and turned, what they did is as well a perfect
demonstration of reaching the place where they stopped, and this is how it is shown then. A policy that learnt so and
acts in the frame of a goal (`vqbet.coordinates.goal_frame`) reaches goals of which it has seen none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from vqbet.contract import Demonstrations
from vqbet.coordinates import goal_frame
from vqbet.demos.goals import GOALS

# Tasks whose observations, goals and actions are all points of a plane, x before y, and where the points of the world's
# own goal lie, which is where everything ends in the frame of a goal. The world says the same, a test compares.
AT: Mapping[str, tuple[float, ...]] = {
    "pusht": (
        *(198.8861, 326.2233, 213.7173, 212.0390, 300.0571, 298.0866),
        *(237.7467, 273.8708, 159.2107, 332.8985, 260.3454, 306.8128),
        *(204.5961, 250.8828, 199.6524, 288.5544, 273.8486, 271.4440),
    )
}


def motion(demos: Demonstrations) -> goal_frame.Motion:
    """Of each episode, what brings the place that it reached to the goal; the task is in AT."""
    task, names = demos.spec.task, [channel.name for channel in demos.spec.observation]
    reached = demos.observation[demos.episode_ends - 1][:, [names.index(name) for name in GOALS[task]]]
    return goal_frame.onto(reached, np.array(AT[task]))


def framed(demos: Demonstrations) -> Demonstrations:
    """Each demonstration in the frame of what it reached, without states."""
    steps = motion(demos)[np.repeat(np.arange(len(demos.lengths)), demos.lengths)]
    return replace(demos, observation=steps.there(demos.observation), action=steps.there(demos.action), state=None)
