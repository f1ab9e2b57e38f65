"""Summary tables for validation: a row per episode, a row per channel, and histograms, with no loop over steps.

All functions expect demonstrations whose structure was checked (`vqbet.demos.validation.structure`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from vqbet.contract import Channel, Demonstrations

BINS = 40
AT_LIMIT = 1e-4  # of a channel's range: this close to a limit counts as "at" the limit
FULL_TURN = 2 * math.pi

Table = Mapping[str, np.ndarray]


def episode_of_step(demos: Demonstrations) -> Int[np.ndarray, " N"]:
    """Return the episode that each step belongs to."""
    return np.repeat(np.arange(len(demos.episode_ends)), demos.lengths)


def is_first_step(demos: Demonstrations) -> Bool[np.ndarray, " N"]:
    first = np.zeros(len(demos.observation), bool)
    first[demos.episode_starts] = True
    return first


def nonfinite(demos: Demonstrations) -> Mapping[str, Bool[np.ndarray, "N _"]]:
    """Return where each field holds NaN or an infinity, by name of the field.

    The states of an episode without states are NaN throughout and are no fault where other episodes have states.
    """
    fields = {"observation": demos.observation, "action": demos.action, "time_s": demos.time_s[:, None]}
    if demos.state is not None:
        fields["state"] = demos.state
    found = {name: ~np.isfinite(array) for name, array in fields.items()}
    if demos.state is not None and not demos.stateless.all():
        found["state"] &= ~np.repeat(demos.stateless, demos.lengths)[:, None]
    return found


def outside(array: Float[np.ndarray, "N C"], channels: tuple[Channel, ...]) -> Bool[np.ndarray, "N C"]:
    """Return where finite values leave their channel's limits. Limits are rounded to float32, as the values were."""
    low, high = _limits(channels)
    return np.isfinite(array) & ((array < low) | (array > high))


def saturated(array: Float[np.ndarray, "N C"], channels: tuple[Channel, ...]) -> Bool[np.ndarray, "N C"]:
    """Return where values lie at one of their channel's limits; never for a channel without finite limits."""
    low, high = _limits(channels)
    margin = np.where(np.isfinite(high - low), AT_LIMIT * (high - low), 0)
    return np.isfinite(array) & ((array <= low + margin) | (array >= high - margin))


def intervals(demos: Demonstrations) -> Float[np.ndarray, " N"]:
    """Return seconds since the previous step, NaN unless both times are finite; meaningless at an episode's start."""
    with np.errstate(invalid="ignore"):
        return np.diff(demos.time_s, prepend=demos.time_s[:1])


def moves(demos: Demonstrations) -> Float[np.ndarray, "N D"]:
    """Return the distance each observed channel moved since the previous step; 0 at an episode's start and around NaN.

    An angle over a full turn is measured the short way round.
    """
    moved = np.abs(changes(demos))
    return np.where(np.isfinite(moved), moved, 0)


def changes(demos: Demonstrations) -> Float[np.ndarray, "N D"]:
    """Return each observed channel's signed change since the previous step; NaN at an episode's start and around NaN.

    An angle over a full turn goes the short way round.
    """
    array = demos.observation.astype(np.float64)
    with np.errstate(invalid="ignore"):
        change = np.diff(array, axis=0, prepend=array[:1])
        for index, channel in enumerate(demos.spec.observation):
            if channel.unit == "rad" and channel.high - channel.low >= FULL_TURN - 0.01:
                change[:, index] -= FULL_TURN * np.round(change[:, index] / FULL_TURN)
    change[is_first_step(demos)] = np.nan
    return change


def frozen(demos: Demonstrations) -> Bool[np.ndarray, " N"]:
    """Return which steps repeat the previous step: same observation, same action, to the bit."""
    still = [(array[1:] == array[:-1]).all(axis=1) for array in (demos.observation, demos.action)]
    same = np.concatenate([[False], still[0] & still[1]])
    same[demos.episode_starts] = False
    return same


def copies(demos: Demonstrations) -> Int[np.ndarray, " E"]:
    """Return, per episode, the first earlier one with the same observations and actions; -1 for an original."""
    seen: dict[bytes, int] = {}
    original = np.full(len(demos.episode_ends), -1, np.int64)
    for episode, (start, end) in enumerate(zip(demos.episode_starts, demos.episode_ends, strict=True)):
        parts = (demos.observation[start:end].tobytes(), demos.action[start:end].tobytes())
        key = hashlib.blake2b(b"".join(parts), digest_size=16).digest()
        first = seen.setdefault(key, episode)
        if first != episode:
            original[episode] = first
    return original


def episodes(demos: Demonstrations) -> Table:
    """Return one row per episode. Shares are of its steps; intervals are NaN where an episode has a single step."""
    starts, lengths = demos.episode_starts, demos.lengths
    interval, first = intervals(demos), is_first_step(demos)
    shortest = np.minimum.reduceat(np.where(first, np.inf, interval), starts)
    longest = np.maximum.reduceat(np.where(first, -np.inf, interval), starts)
    duration = np.add.reduceat(np.where(first, 0, interval), starts)
    several = lengths > 1
    bad = sum(mask.sum(axis=1) for mask in nonfinite(demos).values())
    out = outside(demos.observation, demos.spec.observation).sum(axis=1)
    out = out + outside(demos.action, demos.spec.action).sum(axis=1)
    at_limit = saturated(demos.action, demos.spec.action).any(axis=1)
    return {
        "episode": np.arange(len(lengths)),
        "length": lengths,
        "start_s": demos.time_s[starts],
        "duration_s": duration,
        "shortest_interval_s": np.where(several, shortest, np.nan),
        "mean_interval_s": np.where(several, duration / np.maximum(lengths - 1, 1), np.nan),
        "longest_interval_s": np.where(several, longest, np.nan),
        "nonfinite": np.add.reduceat(bad, starts),
        "outside": np.add.reduceat(out, starts),
        "saturated": np.add.reduceat(at_limit.astype(np.int64), starts) / lengths,
        "frozen": np.add.reduceat(frozen(demos).astype(np.int64), starts) / lengths,
        "copy_of": copies(demos),
        "seed": np.asarray(demos.columns["seed"]),
        "success": np.asarray(demos.columns["success"]),
        "task": np.asarray(demos.columns["task"]).astype(str),
    }


def channels(demos: Demonstrations) -> Table:
    """Return one row per channel of observation, then of action. Statistics are over finite values, else NaN."""
    rows: dict[str, list[Any]] = {}
    fields = (("observation", demos.observation, demos.spec.observation), ("action", demos.action, demos.spec.action))
    for kind, array, names in fields:
        low, high = _limits(names)
        out, at_limit = outside(array, names), saturated(array, names)
        for index, channel in enumerate(names):
            finite = array[:, index][np.isfinite(array[:, index])].astype(np.float64)
            row = {"kind": kind, "name": channel.name, "unit": channel.unit, "low": low[index], "high": high[index]}
            row |= {
                "minimum": finite.min() if finite.size else np.nan,
                "maximum": finite.max() if finite.size else np.nan,
                "mean": finite.mean() if finite.size else np.nan,
                "deviation": finite.std() if finite.size and np.ptp(finite) > 0 else 0.0,
                "nonfinite": len(array) - finite.size,
                "outside": int(out[:, index].sum()),
                "saturated": float(at_limit[:, index].mean()),
            }
            for key, value in row.items():
                rows.setdefault(key, []).append(value)
    return {key: np.array(values) for key, values in rows.items()}


def histograms(demos: Demonstrations) -> Mapping[str, Mapping[str, Any]]:
    """Return counts in equal bins: of "length" (of episodes), "observation.<name>" and "action.<name>" (of values)."""
    found = {"length": _histogram(demos.lengths)}
    for kind, array, names in (
        ("observation", demos.observation, demos.spec.observation),
        ("action", demos.action, demos.spec.action),
    ):
        for index, channel in enumerate(names):
            found[f"{kind}.{channel.name}"] = _histogram(array[:, index])
    return found


def _histogram(values: np.ndarray) -> Mapping[str, Any]:
    """Return a histogram. Integers get bins of integer width, shifted by one half: all cover equally many."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return {"low": 0.0, "high": 0.0, "counts": []}
    low, high, bins = float(finite.min()), float(finite.max()), BINS
    if values.dtype.kind in "iu":
        each = math.ceil((high - low + 1) / BINS)
        bins = math.ceil((high - low + 1) / each)
        low, high = low - 0.5, low - 0.5 + bins * each
    elif high == low:
        low, high, bins = low - 0.5, high + 0.5, 1
    place = np.minimum(((finite - low) * (bins / (high - low))).astype(np.int64), bins - 1)
    return {"low": low, "high": high, "counts": np.bincount(place, minlength=bins).tolist()}


def _limits(channels: tuple[Channel, ...]) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, " C"]]:
    low = np.array([channel.low for channel in channels], np.float32)
    return low, np.array([channel.high for channel in channels], np.float32)
