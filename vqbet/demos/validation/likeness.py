"""Episodes that copy others except for a little noise or another speed, detected by fingerprints of equal length.

A fingerprint is the observation at POINTS places, evenly spread from an episode's first step to its last. Each channel
is divided by its deviation in the whole set, or a thousandth of its limits if that is more. Velocities are left out,
because they differ in a copy that was played slower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vqbet.contract import Demonstrations

POINTS = 16
SAME = 0.002  # root mean square distance, in deviations: no person and no noisy sensor repeats itself so closely
CLOSE = 0.05  # up to this distance an episode may resemble another, if a gap follows ...
GAP = 4.0  # ... such that the next one is so many times further away
STILL = 1e-3  # of a channel's limits: smaller deviations are sensor noise
ROWS = 512  # episodes compared with all others at a time


@dataclass(frozen=True, slots=True)
class Likeness:
    """Per episode the first earlier one that it nearly repeats, and the first that it resembles; -1 for none."""

    copy_of: Int[np.ndarray, " E"]
    resembles: Int[np.ndarray, " E"]


def likeness(demos: Demonstrations) -> Likeness:
    """Return the result of comparing all pairs of episodes."""
    prints = fingerprints(demos)
    count = len(prints)
    found = Likeness(np.full(count, -1, np.int64), np.full(count, -1, np.int64))
    if not prints.shape[1]:
        return found
    squares = (prints**2).sum(axis=1)
    for first in range(0, count, ROWS):
        rows = prints[first : first + ROWS]
        index = np.arange(first, first + len(rows))
        distance = squares[index, None] + squares - 2 * rows @ prints.T
        distance = np.sqrt(np.maximum(distance, 0) / prints.shape[1])
        distance[np.arange(len(rows)), index] = np.inf
        earlier = np.arange(count) < index[:, None]
        found.copy_of[index] = _first(earlier & (distance <= SAME))
        found.resembles[index] = _first(earlier & (distance <= _reach(distance)[:, None]))
    return found


def _first(marked: Bool[np.ndarray, "R E"]) -> Int[np.ndarray, " R"]:
    return np.where(marked.any(axis=1), marked.argmax(axis=1), -1)


def fingerprints(demos: Demonstrations) -> Float[np.ndarray, "E F"]:
    """Return a row per episode, float64; without columns that never vary. Non-finite values count as the mean."""
    kept = [place for place, channel in enumerate(demos.spec.observation) if not channel.unit.endswith("/s")]
    values = demos.observation[:, kept].astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    known = np.isfinite(values).any(axis=0)
    values = values[:, known]
    reach = np.array([c.high - c.low for c in demos.spec.observation])[kept][known]
    scale = np.maximum(np.nanstd(values, axis=0), np.where(np.isfinite(reach), STILL * reach, 0))
    values = np.nan_to_num((values - np.nanmean(values, axis=0)) / np.where(scale > 0, scale, 1))[:, scale > 0]
    place = demos.episode_starts[:, None] + (demos.lengths - 1)[:, None] * np.linspace(0, 1, POINTS)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, (demos.episode_ends - 1)[:, None])
    part = (place - below)[..., None]
    return ((1 - part) * values[below] + part * values[above]).reshape(len(place), -1)


def _reach(distance: Float[np.ndarray, "R E"]) -> Float[np.ndarray, " R"]:
    """Return each row's largest distance of similar others: SAME, or the last before a gap if that is below CLOSE."""
    ordered = np.sort(distance, axis=1)[:, :-1]  # without the row itself, at infinity
    if ordered.shape[1] < 2:
        return np.full(len(distance), SAME)
    gaps = (ordered[:, :-1] <= CLOSE) & (ordered[:, 1:] > GAP * np.maximum(ordered[:, :-1], SAME))
    return np.maximum(np.where(gaps, ordered[:, :-1], 0).max(axis=1), SAME)
