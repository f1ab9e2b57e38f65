"""Episodes that are copies of others but for a little noise or another speed, found by fingerprints of equal length.

A fingerprint is the observation at POINTS places, evenly spread from an episode's first step to its last, each channel
over its deviation in the whole set. Speeds are left out: those of a copy that was played slower are others.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import Demonstrations

POINTS = 16
SAME = 0.002  # root mean square distance, in deviations: nobody, and no noisy sensor, repeats himself so closely
CLOSE = 0.05  # up to this distance it is a copy where there is a gap ...
GAP = 4.0  # ... and the next episode is so many times further away
ROWS = 512  # episodes compared with all others at a time


def near_copies(demos: Demonstrations) -> Int[np.ndarray, " E"]:
    """For each episode the first earlier one that it nearly repeats; -1 where there is none."""
    prints = fingerprints(demos)
    count = len(prints)
    original = np.full(count, -1, np.int64)
    if not prints.shape[1]:
        return original
    squares = (prints**2).sum(axis=1)
    for first in range(0, count, ROWS):
        rows = prints[first : first + ROWS]
        distance = squares[first : first + ROWS, None] + squares - 2 * rows @ prints.T
        distance = np.sqrt(np.maximum(distance, 0) / prints.shape[1])
        index = np.arange(first, first + len(rows))
        distance[np.arange(len(rows)), index] = np.inf
        earlier = (distance <= _reach(distance)[:, None]) & (np.arange(count) < index[:, None])
        found = earlier.any(axis=1)
        original[index[found]] = earlier[found].argmax(axis=1)
    return original


def fingerprints(demos: Demonstrations) -> Float[np.ndarray, "E F"]:
    """One row per episode, float64; without columns where nothing varies. What is not finite counts as the mean."""
    kept = [place for place, channel in enumerate(demos.spec.observation) if not channel.unit.endswith("/s")]
    values = demos.observation[:, kept].astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    values = values[:, np.isfinite(values).any(axis=0)]
    deviation = np.nanstd(values, axis=0)
    values = values[:, deviation > 0]
    values = np.nan_to_num((values - np.nanmean(values, axis=0)) / deviation[deviation > 0])
    place = demos.episode_starts[:, None] + (demos.lengths - 1)[:, None] * np.linspace(0, 1, POINTS)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, (demos.episode_ends - 1)[:, None])
    part = (place - below)[..., None]
    return ((1 - part) * values[below] + part * values[above]).reshape(len(place), -1)


def _reach(distance: Float[np.ndarray, "R E"]) -> Float[np.ndarray, " R"]:
    """Up to which distance each row's others are its copies: SAME, or the last before a gap if that is below CLOSE."""
    ordered = np.maximum(np.sort(distance, axis=1)[:, :-1], 1e-12)  # without itself, at infinity
    if ordered.shape[1] < 2:
        return np.full(len(distance), SAME)
    gaps = (ordered[:, :-1] <= CLOSE) & (ordered[:, 1:] > GAP * np.maximum(ordered[:, :-1], SAME))
    last = np.where(gaps, ordered[:, :-1], 0).max(axis=1)
    return np.maximum(last, SAME)
