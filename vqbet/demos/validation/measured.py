"""Demonstrations together with all measurements that checks use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from vqbet.contract import Channel, Demonstrations
from vqbet.demos.validation import ends, likeness, motion, pictures, tables
from vqbet.demos.validation.knowledge import Knowledge


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits set by the operator: lengths in steps, shares of steps (saturated) and of episodes (duplicates, success).

    waive: reasons, by the name of a check whose errors become advice.
    """

    min_steps: int
    max_steps: int
    max_saturated: float
    max_duplicates: float
    min_success: float
    waive: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """Demonstrations of sound structure, their summary tables, agreement of actions and motion, and the bounds.

    pictures: measurements of each camera's pictures, by its name.
    """

    demos: Demonstrations
    episodes: tables.Table
    channels: tables.Table
    bounds: Bounds
    motion: motion.Agreement
    pictures: Mapping[str, pictures.Seen] = field(default_factory=dict)

    @classmethod
    def of(cls, demos: Demonstrations, bounds: Bounds, knowledge: Knowledge) -> Measured:
        """Return measurements of demonstrations whose structure was checked. Raises ValidationError and StoreError for
        pictures that cannot be read."""
        agreement = motion.agreement(demos, knowledge.references)
        episodes, like = tables.episodes(demos), likeness.likeness(demos)
        exact = episodes["copy_of"] >= 0
        more = {
            "near_copy_of": np.where(exact, -1, like.copy_of),
            "resembles": np.where(exact, -1, like.resembles),
            "motion_faults": agreement.faults(),
            "success_unseen": episodes["success"] & ~ends.success_seen(demos, knowledge.goal),
            "done_at_start": ends.done_at_start(demos, knowledge.goal),
        }
        return cls(demos, {**episodes, **more}, tables.channels(demos), bounds, agreement, pictures.seen(demos))

    def fields(self) -> Iterator[tuple[str, np.ndarray, tuple[Channel, ...]]]:
        yield "observation", self.demos.observation, self.demos.spec.observation
        yield "action", self.demos.action, self.demos.spec.action
