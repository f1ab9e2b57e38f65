"""A source in memory: two joints that follow their targets, pictures of their state, and whatever a test changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.demos.sources.source import Field, Size, SourceEpisode

HZ = 20.0


@dataclass
class MadeSource:
    """Episodes of numbers by field; a field of pictures holds a grey value per step. opened: (episode, field) pairs."""

    values: list[dict[str, np.ndarray]]
    fields: dict[str, Field]
    episodes: tuple[SourceEpisode, ...]
    rate_hz: float | None = HZ
    timed: bool = True
    notes: tuple[str, ...] = ()
    format: str = "npz"
    path: Path = Path("made")

    def __post_init__(self) -> None:
        self.opened: list[tuple[int, str]] = []

    def time_s(self, episode: int) -> np.ndarray | None:
        return np.arange(self.episodes[episode].steps) / HZ if self.timed else None

    def numbers(self, episode: int, name: str) -> np.ndarray:
        return self.values[episode][name]

    def frames(self, episode: int, name: str, size: Size | None = None) -> Iterator[np.ndarray]:
        self.opened.append((episode, name))
        shape = (*(size or self.fields[name].shape[:2]), 3)
        for value in self.values[episode][name]:
            yield np.full(shape, value, np.uint8)

    def files(self) -> list[Path]:
        return []

    def identity(self, episode: int, name: str) -> str:
        return f"{episode} {name}"


def made(
    episodes: int = 6, *, relative: bool = False, gain: float = 0.5, pictures: bool = False, **changes: Any
) -> MadeSource:
    """Return joints that move by `gain` of the way to their target, or by their action."""
    random, values = np.random.default_rng(0), []
    for number in range(episodes):
        steps = 30 + 3 * number
        target = np.cumsum(random.normal(0, 0.1, (steps, 2)), axis=0)
        state = np.zeros((steps, 2))
        for step in range(steps - 1):
            state[step + 1] = state[step] + gain * (target[step] - state[step])
        step_taken = np.diff(state, axis=0, append=state[-1:]) / 0.1
        values.append(
            {
                "state": state.astype(np.float32),
                "action": (step_taken if relative else target).astype(np.float32),
                "effort": np.abs(target[:, :1]).astype(np.float32),
            }
        )
        if pictures:
            values[-1]["camera/Front View"] = np.arange(steps) + number
    fields = {
        "state": Field("state", "numbers", (2,), "float32", names=("shoulder", "elbow"), units=("rad", "rad")),
        "action": Field("action", "numbers", (2,), "float32", names=("shoulder", "elbow"), units=("rad", "rad")),
        "effort": Field("effort", "numbers", (1,), "float32"),
    }
    if pictures:
        fields["camera/Front View"] = Field("camera/Front View", "video", (480, 640, 3), "uint8", codec="av1")
    told = tuple(SourceEpisode(f"take-{number}", len(one["state"])) for number, one in enumerate(values))
    return MadeSource(values, fields, changes.pop("told", told), **changes)
