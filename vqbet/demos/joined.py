"""Pictures of several sets one after the other, read from each where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Int, UInt8

from vqbet.contract import Frames


@final
class Joined:
    """Pictures of one camera in several parts, whose steps follow one another; satisfies `contract.Frames`."""

    def __init__(self, parts: Sequence[Frames]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([part.shape[0] for part in parts])

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, height, width, 3)."""
        return (int(self._ends[-1]), *self._parts[0].shape[1:])

    def __getitem__(self, steps: Int[np.ndarray, "*B"]) -> UInt8[np.ndarray, "*B height width 3"]:
        """Return the pictures of these steps as a fresh array. Raises IndexError for a step that does not exist."""
        wanted = np.asarray(steps)
        flat = wanted.reshape(-1)
        if flat.size and not (flat.min() >= 0 and flat.max() < self._ends[-1]):
            raise IndexError(f"expected steps from 0 to {self._ends[-1] - 1}, got {flat.min()} to {flat.max()}")
        found = np.empty((flat.size, *self.shape[1:]), np.uint8)
        owner = np.searchsorted(self._ends, flat, side="right")
        for number in np.unique(owner):
            first = self._ends[number - 1] if number else 0
            mine = owner == number
            found[mine] = self._parts[number][flat[mine] - first]
        return found.reshape(*wanted.shape, *self.shape[1:])
