"""Training windows with hindsight goals: later observations of the same demonstration (VQ-BeT, section 3.4).

The goal of a window is some channels of G consecutive observations that end at a later step of the same episode, and
the pictures of these steps where it includes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Int

from vqbet.contract import GOAL_PICTURES, Demonstrations, goal_channels
from vqbet.demos.windows import Corrections, Windows

VARIANTS = 16


def windows(
    demos: Demonstrations,
    *,
    window: int,
    chunk: int,
    goal: Sequence[str],
    goal_steps: int,
    ends_only: bool = False,
    corrections: Corrections = "all",
) -> Windows | GoalWindows:
    """Return training windows, with goals where `goal` names channels or GOAL_PICTURES.

    ends_only: only ends of episodes are goals.
    """
    plain = Windows(demos, window=window, chunk=chunk, corrections=corrections)
    variants = 1 if ends_only else VARIANTS
    return GoalWindows(plain, demos, channels=goal, steps=goal_steps, variants=variants) if goal else plain


@final
class GoalWindows:
    """Windows of `windows`, each with V goals (`variants`), evenly spread from its next step to its episode's end.

    Window i with variant v has the number i V + v. With r steps left after the current one, the goal of variant v ends
    ceil((v + 1) r / V) steps ahead: the last variant is always the episode's end, and near and far goals are equally
    frequent. At the last step of an episode, where nothing is left, the goal is that step itself.

    Raises ValueError where windows and demonstrations have different steps, or no such goal can be made.
    """

    def __init__(
        self,
        windows: Windows,
        demos: Demonstrations,
        *,
        channels: Sequence[str],
        steps: int,
        variants: int = VARIANTS,
    ) -> None:
        names = [channel.name for channel in demos.spec.observation]
        known, pictured = {*names, *([GOAL_PICTURES] if demos.cameras else [])}, GOAL_PICTURES in channels
        if steps < 1 or not channels or not set(channels) <= known:
            raise ValueError(f"expected 1 goal step or more and channels among {names}, got {steps} of {channels}")
        if windows.recorded != len(demos.observation):
            raise ValueError(f"expected windows of these {len(demos.observation)} steps, got {windows.recorded}")
        self._windows, self._steps, self._variants = windows, steps, variants
        places = np.array([names.index(name) for name in goal_channels(tuple(channels))], np.int64)
        self._goal = np.ascontiguousarray(demos.observation[:, places])
        self._cameras = dict(demos.cameras) if pictured else {}
        self._first = np.repeat(demos.episode_starts, demos.lengths)
        self._last = np.repeat(demos.episode_ends - 1, demos.lengths)

    def __len__(self) -> int:
        return len(self._windows) * self._variants

    def gather(self, index: Int[np.ndarray, " B"]) -> dict[str, np.ndarray]:
        """Return `Windows.gather` and "goal" (B, G, C) float32, oldest first. Raises IndexError likewise.

        With GOAL_PICTURES also "goal/camera/<name>" (B, G, height, width, 3) uint8 of each camera.
        """
        if index.dtype.kind != "i":  # a mask, divided, would pass for steps
            raise IndexError(f"expected a vector of signed integers, got {index.dtype}")
        window, variant = index // self._variants, index % self._variants
        batch = self._windows.gather(window)
        current = self._windows.steps[window]
        left = self._last[current] - current
        end = current - (-(variant + 1) * left // self._variants)
        wanted = end[:, None] + np.arange(1 - self._steps, 1)
        steps = np.maximum(wanted, self._first[current][:, None])
        pictures = {f"goal/camera/{name}": frames[steps] for name, frames in self._cameras.items()}
        return batch | {"goal": self._goal[steps]} | pictures
