"""Codes and reconstruction errors of the champion's tokenizer on both versions.

Divergence is the Jensen-Shannon divergence (Lin 1991, IEEE Trans. Inf. Theory 37, 145) in bits: 0 where both versions
use a layer's codes equally, 1 where they share no code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import Channel
from vqbet.drift.chance import Measure, counted
from vqbet.drift.episodes import Pool
from vqbet.drift.shift import below

TAIL = 0.99  # quantile of the errors
LEAST_ERROR = 0.001  # of a channel's deviation: smaller errors count as this, so that no ratio is infinite
CURVE = np.concatenate([np.arange(0.02, 0.9, 0.02), 1 - np.geomspace(0.1, 0.001, 31)])  # quantile levels of the plot
EDGES = 1 - np.geomspace(1.0, 1e-4, 129)  # quantile levels that bound the bins of errors in the permutation test


@dataclass(frozen=True, slots=True)
class Coded:
    """The M >= 1 chunks of a version that lie completely within their episode, encoded and decoded.

    channels: of the tokenizer's actions, which can differ from the recorded ones (`demos.views`).
    """

    codes: Int[np.ndarray, "M Q"]
    error: Float[np.ndarray, "M H A"]  # absolute, in the channels' units
    owner: Int[np.ndarray, " M"]  # the episode of each chunk
    size: int  # K, codes per layer
    channels: tuple[Channel, ...]  # A
    deviation: Float[np.ndarray, " A"]  # of each channel, see `shift.deviation`


@dataclass(frozen=True, slots=True)
class CodebookLayer:
    """Usage of the codes of one quantiser layer; old and new are shares of the chunks."""

    layer: int
    divergence: float  # bits
    old: Float[np.ndarray, " K"]
    new: Float[np.ndarray, " K"]
    unused: list[int]  # used by the old version only
    used: list[int]  # used by the new version only


@dataclass(frozen=True, slots=True)
class Tail:
    """Reconstruction error of one action channel, in its unit. ratio: p99 of the new version over that of the old."""

    channel: Channel
    scale: float  # the old version's deviation of the channel, see `shift.deviation`
    old_mean: float
    new_mean: float
    old_p99: float
    new_p99: float
    ratio: float
    old_curve: Float[np.ndarray, " levels"]  # the error at each level of CURVE
    new_curve: Float[np.ndarray, " levels"]

    @property
    def name(self) -> str:
        return f"action.{self.channel.name}"


def layers(old: Coded, new: Coded) -> list[CodebookLayer]:
    """Return the usage of every layer's codes by both versions."""
    found = []
    for layer in range(old.codes.shape[1]):
        before, after = (np.bincount(coded.codes[:, layer], minlength=coded.size) for coded in (old, new))
        found.append(
            CodebookLayer(
                layer=layer,
                divergence=float(divergence(before[None], after[None])[0]),
                old=before / before.sum(),
                new=after / after.sum(),
                unused=np.flatnonzero((before > 0) & (after == 0)).tolist(),
                used=np.flatnonzero((before == 0) & (after > 0)).tolist(),
            )
        )
    return found


def tails(old: Coded, new: Coded) -> list[Tail]:
    """Return the error of every action channel on both versions."""
    found = []
    for index, channel in enumerate(old.channels):
        before, after = (coded.error[..., index].reshape(-1).astype(np.float64) for coded in (old, new))
        scale = float(old.deviation[index])
        p99 = [float(np.quantile(errors, TAIL)) for errors in (before, after)]
        least = LEAST_ERROR * scale
        found.append(
            Tail(
                channel=channel,
                scale=scale,
                old_mean=float(before.mean()),
                new_mean=float(after.mean()),
                old_p99=p99[0],
                new_p99=p99[1],
                ratio=max(p99[1], least) / max(p99[0], least),
                old_curve=np.quantile(before, CURVE),
                new_curve=np.quantile(after, CURVE),
            )
        )
    return found


def measures(old: Coded, new: Coded, pool: Pool, episodes: tuple[int, int]) -> list[Measure]:
    """Return a measure for the divergence of each of `layers`, then one for the ratio of each of `tails`.

    episodes: number of episodes of the old and the new version.
    """
    owner, total = np.concatenate([old.owner, new.owner + episodes[0]]), sum(episodes)
    codes = np.concatenate([old.codes, new.codes])
    use = [Measure(counted(column, owner, total, old.size)[pool.first], divergence) for column in codes.T]
    error = np.concatenate([old.error, new.error])
    repeated = np.repeat(owner, error.shape[1])
    tail = [
        _tail(error[..., index].reshape(-1), repeated, total, pool, LEAST_ERROR * scale)
        for index, scale in enumerate(old.deviation.tolist())
    ]
    return [*use, *tail]


def divergence(old: Float[np.ndarray, "P K"], new: Float[np.ndarray, "P K"]) -> Float[np.ndarray, " P"]:
    """Jensen-Shannon divergence, in bits, of two distributions over K codes, given as counts."""
    shares = [counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0) for counts in (old, new)]
    middle = (shares[0] + shares[1]) / 2
    return np.maximum(_entropy(middle) - (_entropy(shares[0]) + _entropy(shares[1])) / 2, 0.0)


def _entropy(shares: Float[np.ndarray, "P K"]) -> Float[np.ndarray, " P"]:
    """Entropy in bits."""
    return -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(axis=1)


def _tail(errors: np.ndarray, owner: np.ndarray, episodes: int, pool: Pool, least: float) -> Measure:
    """Return the measure of the ratio of both p99; a p99 is the upper edge of its bin."""
    edges = np.unique(np.quantile(errors, np.concatenate([EDGES, [1.0]]), method="nearest"))
    bins = np.searchsorted(edges, errors, side="left")
    upper = np.maximum(edges.astype(np.float64), least)

    def ratio(old: Float[np.ndarray, "P B"], new: Float[np.ndarray, "P B"]) -> Float[np.ndarray, " P"]:
        before, after = (upper[(below(counts) < TAIL).sum(axis=1).clip(max=len(upper) - 1)] for counts in (old, new))
        return after / before

    return Measure(counted(bins, owner, episodes, len(edges))[pool.first], ratio)
