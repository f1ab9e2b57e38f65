"""Demonstrations from a random process with correlated steps, and a grid as a tokenizer, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vqbet.contract import Channel, Demonstrations, Spec
from vqbet.drift import Coded, DriftReport, Thresholds, compare, deviation

D, A, CHUNK, CODES = 3, 2, 2, 8
LIMITS = Thresholds(max_shift=0.2, max_divergence=0.02, max_tail=1.25)
SPEC = Spec(
    task="made",
    observation=tuple(Channel(f"o{index}", "m", -9.0, 9.0) for index in range(D)),
    action=tuple(Channel(f"a{index}", "m", -9.0, 9.0) for index in range(A)),
    control_hz=10.0,
    action_kind="absolute",
    frame="table",
)


def process(seed: int, episodes: int = 24) -> Demonstrations:
    """Return demonstrations whose steps vary slowly about a level per episode; standard deviation 1 in each channel."""
    random = np.random.default_rng(seed)
    lengths = random.integers(15, 30, size=episodes)
    level = np.repeat(random.normal(scale=0.8, size=(episodes, D + A)), lengths, axis=0)
    wander = random.normal(scale=0.6, size=level.shape)
    within = np.ones(len(level), bool)
    within[np.cumsum(lengths) - lengths] = False
    for step in np.flatnonzero(within):
        wander[step] = 0.9 * wander[step - 1] + np.sqrt(1 - 0.9**2) * wander[step]
    values = (level + wander).astype(np.float32)
    return Demonstrations(
        spec=SPEC,
        observation=values[:, :D],
        action=values[:, D:],
        time_s=np.concatenate([np.arange(length) / 10 for length in lengths]),
        episode_ends=np.cumsum(lengths),
        columns={
            "session": np.full(episodes, "s"),
            "operator": np.full(episodes, "o"),
            "source": np.full(episodes, "process"),
            "seed": np.arange(episodes) + 1000 * seed,
            "success": np.ones(episodes, bool),
            "task": np.full(episodes, "made"),
        },
    )


def chosen(demos: Demonstrations, episodes: Sequence[int]) -> Demonstrations:
    """Return these episodes in this order."""
    rows = [np.arange(demos.episode_starts[episode], demos.episode_ends[episode]) for episode in episodes]
    steps = np.concatenate(rows)
    return replace(
        demos,
        observation=demos.observation[steps],
        action=demos.action[steps],
        time_s=demos.time_s[steps],
        episode_ends=np.cumsum([len(row) for row in rows]),
        columns={name: column[list(episodes)] for name, column in demos.columns.items()},
    )


def joined(one: Demonstrations, two: Demonstrations) -> Demonstrations:
    return replace(
        one,
        observation=np.concatenate([one.observation, two.observation]),
        action=np.concatenate([one.action, two.action]),
        time_s=np.concatenate([one.time_s, two.time_s]),
        episode_ends=np.concatenate([one.episode_ends, two.episode_ends + one.episode_ends[-1]]),
        columns={name: np.concatenate([column, two.columns[name]]) for name, column in one.columns.items()},
    )


def moved(demos: Demonstrations, channel: int, *, by: float = 0.0, times: float = 1.0) -> Demonstrations:
    """Scale and shift one channel at every step. channel: index into observation channels, then action channels."""
    values = np.concatenate([demos.observation, demos.action], axis=1)
    values[:, channel] = values[:, channel] * times + by
    return replace(demos, observation=values[:, :D], action=values[:, D:])


def coded(demos: Demonstrations, chunk: int = CHUNK) -> Coded:
    """Encode the first step of each chunk on a grid, one layer per action channel; errors are distances to the grid."""
    left = np.repeat(demos.episode_ends, demos.lengths) - np.arange(len(demos.action))
    starts = np.flatnonzero(left >= chunk)
    chunks = demos.action[starts[:, None] + np.arange(chunk)]
    codes = np.clip(np.floor(chunks[:, 0] / 0.75) + CODES // 2, 0, CODES - 1).astype(np.int64)
    centres = (codes - CODES // 2 + 0.5) * 0.75
    return Coded(
        codes=codes,
        error=np.abs(chunks - centres[:, None]),
        owner=np.searchsorted(demos.episode_ends, starts, side="right"),
        size=CODES,
        channels=demos.spec.action,
        deviation=np.array([deviation(*each) for each in zip(demos.action.T, demos.spec.action, strict=True)]),
    )


def compared(old: Demonstrations, new: Demonstrations, limits: Thresholds = LIMITS) -> DriftReport:
    return compare(old, new, (coded(old), coded(new)), limits)
