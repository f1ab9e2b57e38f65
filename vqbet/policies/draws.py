"""Random numbers of an episode as a function of its seed and step alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

GAMMA, FIRST, SECOND = (
    np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)  # SplitMix64
N11, N27, N30, N31 = (np.uint64(c) for c in (11, 27, 30, 31))


def uniforms(seeds: Int[np.ndarray, " B"], steps: Int[np.ndarray, " B"], count: int) -> Float[np.ndarray, "B count"]:
    """Return `count` numbers in [0, 1) per row, a function of the row's seed and step alone.

    SplitMix64 (Steele, Lea & Flood 2014) over a counter has no state, so rows cannot influence one another.
    """
    seed, step = seeds.astype(np.uint64)[:, None], steps.astype(np.uint64)[:, None]
    index = np.arange(count, dtype=np.uint64)
    return (_mix(_mix(_mix(seed) + step) + index) >> N11) * 2.0**-53


def _mix(value: np.ndarray) -> np.ndarray:
    value = value + GAMMA
    value = (value ^ (value >> N30)) * FIRST
    value = (value ^ (value >> N27)) * SECOND
    return value ^ (value >> N31)
