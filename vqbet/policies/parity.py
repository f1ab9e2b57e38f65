"""Parity of two actors that shall be one policy: equal codes, and actions equal but for rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from vqbet.contract import BundleError, Camera, Spec
from vqbet.policies.actor import Actor

TOLERANCE = 1e-5  # of the range of each action channel
SIGNALS_TOLERANCE = 1e-3  # of entropies in nats and sizes in normalised units, which only warn
SCENES = 1024
ALONE = 128  # of them one at a time, as on a robot; the others in batches
BATCH = 64
BLOT = 8  # px
SEEN = 128  # scenes with pictures, which take a hundred times as long
STEP = 0.02  # standard deviation of a generated step, of the range of each channel


@dataclass(frozen=True, slots=True)
class Scenes:
    """Inputs of N plans. origin: "recorded" or "generated". pictures: of each of the T steps, by camera, if any."""

    observation: Float[np.ndarray, "N T D"]
    goals: Float[np.ndarray, "N C"]
    origin: str
    pictures: Mapping[str, UInt8[np.ndarray, "N T height width 3"]] = field(default_factory=dict)

    def seen(self, actor: Actor, rows: Int[np.ndarray, " B"]) -> Float[np.ndarray, "B T D+F"]:
        """Return the observations of some scenes, with the features that the actor has of their pictures."""
        observed, steps = self.observation[rows], self.observation.shape[1]
        if not self.pictures:
            return observed
        flat = {name: each[rows].reshape(-1, *each.shape[2:]) for name, each in self.pictures.items()}
        return actor.see(observed.reshape(len(rows) * steps, -1), flat).reshape(len(rows), steps, -1)


@dataclass(frozen=True, slots=True)
class Parity:
    """Agreement over N plans: all codes equal, actions apart by at most `apart` of the range of their channels."""

    plans: int
    scenes: str
    apart: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def generated(spec: Spec, goal: tuple[str, ...], window: int, count: int = SCENES, seed: int = 0) -> Scenes:
    """Return random walks within the limits of the observed channels, goals within those of theirs, and blots."""
    count = min(count, SEEN) if spec.cameras else count
    rng = np.random.default_rng(seed)
    low, high = (np.array([getattr(one, end) for one in spec.observation]) for end in ("low", "high"))
    first = rng.uniform(low, high, (count, 1, len(low)))
    steps = rng.normal(scale=STEP, size=(count, window - 1, len(low))) * (high - low)
    walk = np.clip(np.concatenate([first, first + steps.cumsum(1)], axis=1), low, high)
    wanted = [[one.name for one in spec.observation].index(name) for name in goal]
    goals = rng.uniform(low[wanted], high[wanted], (count, len(wanted)))
    shown = {camera.name: _blots(rng, count, window, camera) for camera in spec.cameras}
    return Scenes(walk.astype(np.float32), goals.astype(np.float32), "generated", shown)


def compare(one: Actor, other: Actor, scenes: Scenes, progress: Callable[[int, int], None]) -> Parity:
    """Return how far the plans of `other` are from those of `one`, each with random numbers of its own.

    Raises BundleError where a code differs, or an action by more than TOLERANCE.
    """
    spread = np.array([channel.high - channel.low for channel in one.spec.action])
    count, apart = len(scenes.observation), 0.0
    for rows in _parts(count):
        given = scenes.goals[rows], rows, np.zeros(len(rows), np.int64)
        mine, theirs = (actor.plan(scenes.seen(actor, rows), *given) for actor in (one, other))
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


def _blots(
    rng: np.random.Generator, count: int, window: int, camera: Camera
) -> UInt8[np.ndarray, "N T height width 3"]:
    """Return pictures of random blots; noise without them would look the same to every encoder."""
    cells = [-(-side // BLOT) for side in camera.shape[:2]]
    drawn = rng.integers(0, 256, (count, window, *cells, 3), np.uint8)
    return drawn.repeat(BLOT, 2).repeat(BLOT, 3)[:, :, : camera.height, : camera.width]


def _parts(count: int) -> Iterator[Int[np.ndarray, " B"]]:
    alone = min(ALONE, count)
    yield from (np.arange(row, row + 1) for row in range(alone))
    yield from (np.arange(first, min(first + BATCH, count)) for first in range(alone, count, BATCH))
