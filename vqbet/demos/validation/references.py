"""Which observed channel each action channel moves, and how: from a table, from names, or learned from the set.

The table holds the tasks whose worlds are known. Without an entry an absolute action channel refers to the observed
channel of its own name, and a relative one called `<name>_d<axis>` to `<name>_<axis>`. Where no name fits, the observed
channel whose motion the commands explain best over the episodes is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from vqbet.contract import Spec
from vqbet.demos.validation.signals import Signals

LEARNED_FROM = 32  # episodes, evenly spread over the set

Source = Literal["table", "name", "learned"]


@dataclass(frozen=True, slots=True)
class Known:
    """An action channel and the observed channel that it moves. lag: control steps from a command to its motion.

    slope: motion over command at that lag, in the units of both. strength: their correlation there, median of episodes.
    """

    action: str
    observed: str
    lag: int
    slope: float
    strength: float


@dataclass(frozen=True, slots=True)
class Link:
    """Indices of an action channel and of the observed channel that it moves; `known` where a table says how."""

    action: int
    observed: int
    source: Source
    known: Known | None = None


def _kitchen() -> tuple[Known, ...]:
    slopes = (0.074, 0.052, 0.075, 0.073, 0.092, 0.064, 0.101)
    strengths = (0.99, 0.88, 0.98, 0.98, 0.99, 0.71, 1.00)
    return tuple(
        Known(f"robot_joint{joint}_command", f"robot_joint{joint}_position", 0, slope, strength)
        for joint, slope, strength in zip(range(1, 8), slopes, strengths, strict=True)
    )


_BLOCKPUSH = tuple(Known(f"effector_target_d{axis}", f"effector_target_{axis}", 0, 1.0, 1.0) for axis in "xy")

# BlockPush adds a command to the target that it shows. Push-T's finger follows its target by a PD controller, Franka
# Kitchen's servos follow velocities (its fingers, which meet the kettle, are left out). A test moves each world.
KNOWN: Mapping[str, tuple[Known, ...]] = {
    "blockpush": _BLOCKPUSH,
    "blockpush_drawn": _BLOCKPUSH,
    "kitchen": _kitchen(),
    "pusht": tuple(Known(f"agent_{axis}", f"agent_{axis}", 1, 0.8, 0.94) for axis in "xy"),
}


def links(spec: Spec, signals: Signals, lags: Int[np.ndarray, " L"]) -> list[Link]:
    """A link of each action channel; of a task in KNOWN, of those in its table, if the spec has these channels."""
    seen = [channel.name for channel in spec.observation]
    done = [channel.name for channel in spec.action]
    table = KNOWN.get(spec.task, ())
    if table and all(known.action in done and known.observed in seen for known in table):
        return [Link(done.index(known.action), seen.index(known.observed), "table", known) for known in table]
    named = {index: _named(spec, name, seen) for index, name in enumerate(done)}
    unnamed = [index for index, place in named.items() if place is None]
    learned = _learned(signals, unnamed, lags)
    return [
        Link(index, learned[index], "learned") if place is None else Link(index, place, "name")
        for index, place in named.items()
    ]


def _named(spec: Spec, action: str, seen: Sequence[str]) -> int | None:
    if spec.action_kind == "absolute":
        wanted = action
    else:
        stem, _, axis = action.rpartition("_d")
        wanted = f"{stem}_{axis}" if stem and axis else ""
    return seen.index(wanted) if wanted in seen else None


def _learned(signals: Signals, actions: Sequence[int], lags: Int[np.ndarray, " L"]) -> dict[int, int]:
    """Of each of `actions` the observed channel whose correlation is largest, and is so in three of four episodes."""
    if not actions:
        return {}
    count = len(signals.starts)
    chosen = np.unique(np.linspace(0, count - 1, min(count, LEARNED_FROM)).round().astype(np.int64))
    curves = np.stack([signals.all_pairs(int(episode), np.array(actions), lags) for episode in chosen])
    low, high = np.quantile(curves, [0.25, 0.75], axis=0)  # of curves with either sign the one nearer to 0 counts
    best = np.maximum(low, -high).max(axis=-1).argmax(axis=-1)  # (actions,)
    return dict(zip(actions, best.tolist(), strict=True))
