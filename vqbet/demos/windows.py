"""Training windows over demonstrations: T observed steps and the H-step action chunk that follows each of them.

Padding follows Behavior Generation with Latent Actions (arXiv 2403.03181): before the first step of an episode its
first observation and first action are repeated, like the policy's history when an episode begins. The authors' slicer
never emits the last T starts of an episode and repeats its first chunk T - 1 times as a target. Here every step of
every episode is the current step (position T - 1) of exactly one window, and `valid` tells padding from recorded steps.
"""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from jaxtyping import Bool, Float, Int

from vqbet.contract import Demonstrations

Corrections = Literal["all", "only"]


@final
class Windows:
    """All windows of a set of demonstrations. `steps[i]`, the current step of window i, is i unless steps are left out.

    Position t of window i is step steps[i] - (T - 1) + t. Steps outside the episode of that step are replaced by its
    nearest step, so no window spans two episodes. `valid` is True where a slot is a recorded step:

    - A position is a training target where `valid[:, t]` (t < T). Padded positions of the past are no targets, because
      their chunk would begin with repetitions of the first action. This loses nothing: position T - 1 of the window of
      the first step trains the policy that observes only the repeated first observation.
    - Within the chunk of a target, `valid[:, t:t+H]` is False where the chunk runs past the episode's end and repeats
      the last action.

    corrections: "only" leaves out the steps of episodes with interventions at which nobody intervened, as current steps
    and in `valid`, so that of such episodes a policy learns from the person alone (DAgger, arXiv 1011.0686).
    pictures: False leaves out the cameras, for those who need numbers alone.

    Raises ValueError where T or H is not positive, or `episode_ends` does not cut the steps into episodes.
    """

    def __init__(
        self,
        demos: Demonstrations,
        *,
        window: int,
        chunk: int,
        corrections: Corrections = "all",
        pictures: bool = True,
    ) -> None:
        if window < 1 or chunk < 1:
            raise ValueError(f"expected window and chunk of at least 1 step, got window={window}, chunk={chunk}")
        steps, lengths = len(demos.observation), demos.lengths
        if len(demos.action) != steps or np.any(lengths < 1) or lengths.sum() != steps:
            raise ValueError(
                f"expected episode_ends to rise to the number of steps, got {len(lengths)} episodes of "
                f"{lengths.sum()} steps, {steps} observations and {len(demos.action)} actions"
            )
        self.window = window
        self.chunk = chunk
        self.recorded = steps  # N, of which some may be left out
        self._observation = np.ascontiguousarray(demos.observation)
        self._action = np.ascontiguousarray(demos.action)
        self._cameras = dict(demos.cameras) if pictures else {}
        for name, frames in self._cameras.items():
            if frames.shape[0] != steps:
                raise ValueError(f"camera {name!r}: expected {steps} pictures, one per step, got {frames.shape[0]}")
        self._first = np.repeat(demos.episode_starts, lengths)  # (N,) first step of each step's episode
        self._last = np.repeat(demos.episode_ends - 1, lengths)  # (N,)
        self._offsets = np.arange(1 - window, chunk)  # (T+H-1,) offsets of a window's slots from its current step
        self._taught = taught(demos, corrections)
        self.steps = np.flatnonzero(self._taught)

    def __len__(self) -> int:
        return len(self.steps)

    def gather(self, index: Int[np.ndarray, " B"]) -> dict[str, np.ndarray]:
        """Return the windows numbered `index`, as fresh arrays in the order of `index`.

        Returns "observation" (B, T, D) float32, "action" (B, T+H-1, A) float32, where the chunk of position t is
        `action[:, t:t+H]`, "valid" (B, T+H-1) bool, and of each camera "camera/<name>" (B, T, height, width, 3) uint8,
        whose pictures are those of the steps of the observations. Raises IndexError for a window that does not exist.
        """
        if index.ndim != 1 or index.dtype.kind != "i":
            raise IndexError(f"expected a vector of signed integers, got shape {index.shape} of {index.dtype}")
        if len(index) and (index.min() < 0 or index.max() >= len(self)):
            raise IndexError(f"expected windows from 0 to {len(self) - 1}, got {index.min()} to {index.max()}")
        current = self.steps[index]
        wanted = current[:, None] + self._offsets  # (B, T+H-1)
        nearest = np.clip(wanted, self._first[current][:, None], self._last[current][:, None])
        seen = nearest[:, : self.window]
        return {
            "observation": np.take(self._observation, seen, axis=0),
            "action": np.take(self._action, nearest, axis=0),
            "valid": (wanted == nearest) & self._taught[nearest],
            **{f"camera/{name}": frames[seen] for name, frames in self._cameras.items()},
        }


def taught(demos: Demonstrations, corrections: Corrections) -> Bool[np.ndarray, " N"]:
    """Return the steps to learn from: all, or of episodes with interventions only those at which a person acted."""
    if corrections == "all" or demos.intervention is None:
        return np.ones(len(demos.observation), bool)
    corrected = np.logical_or.reduceat(demos.intervention, demos.episode_starts)
    return demos.intervention | ~np.repeat(corrected, demos.lengths)


def complete_chunks(demos: Demonstrations, chunk: int, corrections: Corrections = "all") -> Float[np.ndarray, "M H A"]:
    """Return every chunk of H actions that lies within its episode, in physical units. corrections: see `Windows`."""
    windows = Windows(demos, window=1, chunk=chunk, corrections=corrections, pictures=False)
    batch = windows.gather(np.arange(len(windows)))
    return batch["action"][batch["valid"].all(axis=1)]
