"""Findings of checks: the first occurrence of a fault, the number of occurrences, and the remedy for its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

NAMED = 5  # episodes listed by number in one message

Severity = Literal["error", "advice"]

REMEDY: Mapping[str, str] = {
    "structure": "write the store again with this version's importer or recorder",
    "finite": "drop the episode, or find which sensor stopped and record it again",
    "length": "drop the episode, or change min_steps or max_steps",
    "limits": "correct the limits in the spec where they are wrong, otherwise drop the episode",
    "dead": "check that the channel was connected and recorded",
    "duplicates": "drop the copies: they weigh a demonstration twice and leak between training and held-out data",
    "still": "trim the pause if the robot was waiting",
    "time": "resample to control_hz, or correct control_hz in the spec",
    "saturation": "widen the limits in the spec, or record more slowly",
    "success": "drop the failed episodes, or lower min_success",
    "columns": "correct the per-episode columns where they are written",
    "jumps": "look at the episode for a tracking failure",
    "motion": "play the episode: look for actions of another time, channel, unit, direction or episode",
    "near_copies": "drop the copies, or raise max_duplicates",
    "success_seen": "look for a recording that was cut off, or a label that is wrong",
    "done_at_start": "look for a recording that began too late, or runs backwards",
    "motionless": "look for a sensor that stood still, or a label that is wrong",
    "seams": "cut the episode in two where it jumps",
    "faint": "check that the channel was connected and recorded",
    "sessions": "hold a whole session out to see what it costs (demos.held_out_sessions), or record more of each",
    "blank_pictures": "look at the episode: a camera that was covered or unplugged; drop the episode",
    "burnt_pictures": "drop the episode, or fix the exposure of the camera and record it again",
    "frozen_pictures": "drop the episode, or find why the camera or its driver stopped",
    "repeated_pictures": "nothing, if the camera is slower than the control; else look for dropped frames",
    "copied_pictures": "look for a file of pictures that was assigned to two episodes",
    "swapped_cameras": "exchange the two cameras of the episode where it is imported",
    "swapped_colours": "exchange red and blue of the episode where it is imported",
    "late_pictures": "shift or cut the episode's pictures where it is imported, or drop it",
    "expectation": "look at the rows of that table",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Fault (error) or oddity (advice), at its first `episode` and `step` within it.

    waiver: reason why an error is only advice; empty where nothing was waived.
    """

    field: str
    message: str
    episode: int | None = None
    step: int | None = None
    severity: Severity = "error"
    check: str = "structure"
    waiver: str = ""

    def excused(self, reason: str) -> Finding:
        """Return the finding as advice, with the reason of its waiver."""
        return replace(self, severity="advice", message=f"{self.message} (waived: {reason})", waiver=reason)

    def __str__(self) -> str:
        return self.message

    @property
    def remedy(self) -> str:
        return REMEDY[self.check]


def in_steps(
    ends: Int[np.ndarray, " E"],
    field: str,
    marked: Bool[np.ndarray, " N"],
    message: Callable[[int], str],
    severity: Severity = "error",
) -> Iterator[Finding]:
    """Yield one finding for all marked steps, none without marks; `message` receives the index of the first."""
    index = np.flatnonzero(marked)
    if not index.size:
        return
    owners = np.searchsorted(ends, index, side="right")
    episode = int(owners[0])
    step = int(index[0] - (ends[episode - 1] if episode else 0))
    more = "" if index.size == 1 else f"; {index.size} steps in {_listed(np.unique(owners))}"
    yield Finding(
        field, f"{field} {message(int(index[0]))} at episode {episode}, step {step}{more}", episode, step, severity
    )


def in_episodes(
    field: str,
    marked: Bool[np.ndarray, " E"],
    message: Callable[[int], str],
    severity: Severity = "error",
    note: str = "",
) -> Iterator[Finding]:
    """Yield one finding for all marked episodes, none without marks; `message` receives the number of the first."""
    index = np.flatnonzero(marked)
    if not index.size:
        return
    first = int(index[0])
    more = "" if index.size == 1 else f"; {_listed(index)}"
    note = f" ({note})" if note else ""
    yield Finding(field, f"{field} {message(first)} at episode {first}{more}{note}", first, None, severity)


def _listed(index: Int[np.ndarray, " _"]) -> str:
    if index.size == 1:
        return f"episode {index[0]}"
    dots = ", ..." if index.size > NAMED else ""
    return f"{index.size} episodes ({', '.join(str(episode) for episode in index[:NAMED])}{dots})"
