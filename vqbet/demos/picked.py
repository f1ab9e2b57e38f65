"""Pictures of some steps out of all, read from the whole set where they are asked for."""

from __future__ import annotations

from typing import final

import numpy as np
from jaxtyping import Int, UInt8

from vqbet.contract import Frames


@final
class Picked:
    """Pictures of the given steps of `frames`, in their order; satisfies `contract.Frames`."""

    def __init__(self, frames: Frames, steps: Int[np.ndarray, " M"]) -> None:
        self._frames, self._steps = frames, steps

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (M, height, width, 3)."""
        return (len(self._steps), *self._frames.shape[1:])

    def __getitem__(self, steps: Int[np.ndarray, "*B"]) -> UInt8[np.ndarray, "*B height width 3"]:
        """Return the pictures of these steps as a fresh array. Raises IndexError for a step that does not exist."""
        if np.any(np.asarray(steps) < 0):
            raise IndexError(f"expected steps from 0 to {len(self._steps) - 1}, got {np.min(steps)}")
        return self._frames[self._steps[steps]]
