"""Parity of two actors that shall be one policy: equal codes, and actions equal but for rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import BundleError, Spec
from vqbet.policies.actor import Actor

TOLERANCE = 1e-5  # of the range of each action channel
SIGNALS_TOLERANCE = 1e-3  # of entropies in nats and sizes in normalised units, which only warn
SCENES = 1024
ALONE = 128  # of them one at a time, as on a robot; the others in batches
BATCH = 64
STEP = 0.02  # standard deviation of a generated step, of the range of each channel


@dataclass(frozen=True, slots=True)
class Scenes:
    """Inputs of N plans. origin: "recorded" or "generated"."""

    observation: Float[np.ndarray, "N T D"]
    goals: Float[np.ndarray, "N C"]
    origin: str


@dataclass(frozen=True, slots=True)
class Parity:
    """Agreement over N plans: all codes equal, actions apart by at most `apart` of the range of their channels."""

    plans: int
    scenes: str
    apart: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def generated(spec: Spec, goal: tuple[str, ...], window: int, count: int = SCENES, seed: int = 0) -> Scenes:
    """Return random walks within the limits of the observed channels, and goals within those of theirs."""
    rng = np.random.default_rng(seed)
    low, high = (np.array([getattr(one, end) for one in spec.observation]) for end in ("low", "high"))
    first = rng.uniform(low, high, (count, 1, len(low)))
    steps = rng.normal(scale=STEP, size=(count, window - 1, len(low))) * (high - low)
    walk = np.clip(np.concatenate([first, first + steps.cumsum(1)], axis=1), low, high)
    wanted = [[one.name for one in spec.observation].index(name) for name in goal]
    goals = rng.uniform(low[wanted], high[wanted], (count, len(wanted)))
    return Scenes(walk.astype(np.float32), goals.astype(np.float32), "generated")


def compare(one: Actor, other: Actor, scenes: Scenes, progress: Callable[[int, int], None]) -> Parity:
    """Return how far the plans of `other` are from those of `one`, each with random numbers of its own.

    Raises BundleError where a code differs, or an action by more than TOLERANCE.
    """
    spread = np.array([channel.high - channel.low for channel in one.spec.action])
    count, apart = len(scenes.observation), 0.0
    for rows in _parts(count):
        given = scenes.observation[rows], scenes.goals[rows], rows, np.zeros(len(rows), np.int64)
        mine, theirs = one.plan(*given), other.plan(*given)
        if (wrong := (mine.tags != theirs.tags).any(1)).any():
            raise BundleError(
                f"parity: expected equal codes in all of {count} {scenes.origin} scenes, got "
                f"{theirs.tags[wrong][0].tolist()} instead of {mine.tags[wrong][0].tolist()} in scene "
                f"{rows[wrong][0]}; nothing was exported: the exporter or onnxruntime computes another policy"
            )
        here = float((np.abs(mine.chunk - theirs.chunk) / spread).max())
        if not here <= TOLERANCE:  # also true for NaN
            raise BundleError(
                f"parity: expected actions within {TOLERANCE:g} of the range of their channels in all of {count} "
                f"{scenes.origin} scenes, got {here:.3g} in scenes {rows[0]} to {rows[-1]}; nothing was exported: the "
                "exporter or onnxruntime computes another policy"
            )
        alike = mine.signals.shape == theirs.signals.shape
        if not (alike and np.allclose(mine.signals, theirs.signals, rtol=0, atol=SIGNALS_TOLERANCE)):
            raise BundleError(
                f"parity: expected the model's signals within {SIGNALS_TOLERANCE:g} in scenes {rows[0]} to {rows[-1]}, "
                f"got {theirs.signals[0].tolist()} instead of {mine.signals[0].tolist()}; nothing was exported"
            )
        apart = max(apart, here)
        progress(int(rows[-1]) + 1, count)
    return Parity(count, scenes.origin, apart)


def _parts(count: int) -> Iterator[Int[np.ndarray, " B"]]:
    alone = min(ALONE, count)
    yield from (np.arange(row, row + 1) for row in range(alone))
    yield from (np.arange(first, min(first + BATCH, count)) for first in range(alone, count, BATCH))
