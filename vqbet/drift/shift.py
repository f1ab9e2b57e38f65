"""Shift of each observation and action channel between two versions, in standard deviations of the old version.

The distance is the first Wasserstein distance: the mean distance that values move to become those of the other version.
Unlike the Kolmogorov-Smirnov distance it measures how far values move, not only how many, and keeps growing when the
ranges no longer overlap. It is never below the shift of the mean, and detects changes of spread and shape at an equal
mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import Channel, Demonstrations
from vqbet.drift.chance import Measure, counted
from vqbet.drift.episodes import Pool

KNOTS = 129  # points of comparison in the permutation test: at every 128th of all values
BARS = 40  # of a histogram
STILL = 0.001  # of a channel's physical range: a smaller deviation is sensor noise and no unit of measurement


@dataclass(frozen=True, slots=True)
class Shift:
    """Shift of one channel.

    distance and mean_shift are in units of `scale`: the old standard deviation, or STILL of the channel's physical
    range where larger. spread is the new version's unit over the old version's.
    """

    side: str  # "observation" or "action"
    channel: Channel
    old_mean: float
    new_mean: float
    old_std: float
    new_std: float
    scale: float  # in the channel's unit
    distance: float
    mean_shift: float
    spread: float
    low: float  # ends of the histograms
    high: float
    old_bars: Float[np.ndarray, " BARS"]  # shares of the steps
    new_bars: Float[np.ndarray, " BARS"]

    @property
    def name(self) -> str:
        return f"{self.side}.{self.channel.name}"


def shifts(old: Demonstrations, new: Demonstrations) -> list[Shift]:
    """Return the shift of every observation channel, then of every action channel."""
    return [_shift(side, channel, *values) for side, channel, *values in _channels(old, new)]


def measures(old: Demonstrations, new: Demonstrations, pool: Pool) -> list[Measure]:
    """Return, for each of `shifts`, the measure of the Wasserstein distance at KNOTS of the values."""
    owner = owners(old, new)
    episodes = len(old.episode_ends) + len(new.episode_ends)
    return [_measure(np.concatenate(values), owner, episodes, pool) for _, _, *values in _channels(old, new)]


def owners(old: Demonstrations, new: Demonstrations) -> Int[np.ndarray, " M"]:
    """Return the episode of each step of both versions; new episodes are numbered after the old ones."""
    lengths = np.concatenate([old.lengths, new.lengths])
    return np.repeat(np.arange(len(lengths)), lengths)


def deviation(values: np.ndarray, channel: Channel) -> float:
    """Return the `scale` of a `Shift`, in the channel's unit; 1 where both deviation and range are 0."""
    found = max(float(values.std(dtype=np.float64)), STILL * (channel.high - channel.low))
    return found if found > 0 else 1.0


def _channels(old: Demonstrations, new: Demonstrations) -> list[tuple[str, Channel, np.ndarray, np.ndarray]]:
    return [
        (side, channel, before[:, index], after[:, index])
        for side, channels, before, after in (
            ("observation", old.spec.observation, old.observation, new.observation),
            ("action", old.spec.action, old.action, new.action),
        )
        for index, channel in enumerate(channels)
    ]


def _shift(side: str, channel: Channel, old: np.ndarray, new: np.ndarray) -> Shift:
    from scipy.stats import wasserstein_distance

    scale = deviation(old, channel)
    means = [float(values.mean(dtype=np.float64)) for values in (old, new)]
    stds = [float(values.std(dtype=np.float64)) for values in (old, new)]
    low, high = (float(end) for end in np.quantile(np.concatenate([old, new]).astype(np.float64), [0.001, 0.999]))
    if low == high:
        low, high = low - scale / 2, high + scale / 2
    bars = [np.histogram(np.clip(values, low, high), BARS, (low, high))[0] / len(values) for values in (old, new)]
    return Shift(
        side=side,
        channel=channel,
        old_mean=means[0],
        new_mean=means[1],
        old_std=stds[0],
        new_std=stds[1],
        scale=scale,
        distance=float(wasserstein_distance(old, new)) / scale,
        mean_shift=(means[1] - means[0]) / scale,
        spread=deviation(new, channel) / scale,
        low=low,
        high=high,
        old_bars=bars[0],
        new_bars=bars[1],
    )


def _measure(values: np.ndarray, owner: np.ndarray, episodes: int, pool: Pool) -> Measure:
    knots = np.unique(np.quantile(values, np.linspace(0, 1, KNOTS), method="nearest"))
    bins = np.searchsorted(knots, values, side="left")  # the first knot that is not below the value
    widths = np.diff(knots.astype(np.float64))

    def distance(old: Float[np.ndarray, "P B"], new: Float[np.ndarray, "P B"]) -> Float[np.ndarray, " P"]:
        return np.abs(below(old) - below(new))[:, :-1] @ widths

    return Measure(counted(bins, owner, episodes, len(knots))[pool.first], distance)


def below(counts: Float[np.ndarray, "P B"]) -> Float[np.ndarray, "P B"]:
    """Return the share of values up to each bin; 0 where there are no values."""
    return np.cumsum(counts, axis=1) / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
