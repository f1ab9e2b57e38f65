"""Observed channel that each action channel moves, and how: from a table, from names, or learned from the set.

The table is the knowledge about a task's world. Without a table, an absolute action channel refers to the observed
channel of its own name, and a relative one called `<name>_d<axis>` to `<name>_<axis>`. A channel without such a name
refers to the observed channel whose motion the commands explain best over the episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from vqbet.contract import Spec
from vqbet.demos.validation.knowledge import Known
from vqbet.demos.validation.signals import Signals

LEARNED_FROM = 32  # episodes, evenly spread over the set

Source = Literal["table", "name", "learned"]


@dataclass(frozen=True, slots=True)
class Link:
    """Indices of an action channel and of the observed channel that it moves; `known` is the entry of the table."""

    action: int
    observed: int
    source: Source
    known: Known | None = None


def links(spec: Spec, signals: Signals, lags: Int[np.ndarray, " L"], table: Sequence[Known]) -> list[Link]:
    """Return one link per entry of `table` where the spec has all of its channels, otherwise one per action channel."""
    seen = [channel.name for channel in spec.observation]
    done = [channel.name for channel in spec.action]
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
    """Return, for each of `actions`, the observed channel of largest correlation, reached in three of four episodes."""
    if not actions:
        return {}
    count = len(signals.starts)
    chosen = np.unique(np.linspace(0, count - 1, min(count, LEARNED_FROM)).round().astype(np.int64))
    curves = np.stack([signals.all_pairs(int(episode), np.array(actions), lags) for episode in chosen])
    low, high = np.quantile(curves, [0.25, 0.75], axis=0)  # for curves of either sign, the quartile nearer to 0 counts
    best = np.maximum(low, -high).max(axis=-1).argmax(axis=-1)  # (actions,)
    return dict(zip(actions, best.tolist(), strict=True))
