"""Rules of a canary: when the first episodes of a new champion on a robot are reason enough to take it back.

Every number is a sum over episodes, which later episodes cannot lower. A limit that is exceeded before the last episode
therefore stays exceeded, and the canary is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import ceil, fsum
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

SLOWEST = 0.99  # the share of an episode's answers whose time is compared with latency_ms
MOST_SLOW = 0.5  # the share of episodes that may be slower


@dataclass(frozen=True, slots=True)
class CanaryRules:
    """Number of episodes, and limits over them, as `config.CanaryParams` describes them."""

    episodes: int
    max_hold_share: float
    max_stop_share: float
    max_intervention_share: float
    latency_ms: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CanaryRules:
        """Return the rules that `to_json` wrote. Raises ValueError for anything else."""
        names = {field.name for field in fields(cls)}
        numbers = all(type(number) in (int, float) and number >= 0 for number in value.values())
        if set(value) != names or not numbers or type(value["episodes"]) is not int or value["episodes"] < 1:
            raise ValueError(f"expected {', '.join(sorted(names))}, each a number")
        return cls(**value)


@dataclass(frozen=True, slots=True)
class CanaryEpisode:
    """One episode of a canary. latency_ms: of 99 of 100 answers; None where the recording has no times of answers."""

    steps: int
    refused: int  # control steps at which the guard held or stopped the robot
    stopped: bool
    driven: bool  # a person took over
    latency_ms: float | None

    @classmethod
    def of(
        cls,
        verdict: Shaped[np.ndarray, " N"],
        intervention: Bool[np.ndarray, " N"],
        latency_ms: Float[np.ndarray, " N"] | None,
    ) -> CanaryEpisode:
        """Return the episode of a recording's arrays. latency_ms: NaN at steps without an answer."""
        return cls(
            steps=len(verdict),
            refused=int((verdict != b"pass").sum()),
            stopped=bool((verdict == b"stop").any()),
            driven=bool(intervention.any()),
            latency_ms=None if latency_ms is None else _slowest(latency_ms),
        )

    def sentence(self) -> str:
        said = [f"{self.refused} of {self.steps} steps refused"]
        said += ["stopped by the guard"] if self.stopped else []
        said += ["a person took over"] if self.driven else []
        return ", ".join(
            [*said, "no answer times" if self.latency_ms is None else f"answers in {self.latency_ms:.0f} ms"]
        )


def exceeded(rules: CanaryRules, episodes: Sequence[CanaryEpisode]) -> list[str]:
    """Return a sentence, with number and limit, for each limit that cannot be kept any more within the canary."""
    total, found = rules.episodes, []
    so_far = f"{len(episodes)} of {total} episodes"
    held = fsum(each.refused / each.steps for each in episodes)
    if held / total > rules.max_hold_share:
        found.append(
            f"after {so_far}, the guard has refused {held / len(episodes):.3g} of the control steps, which is at least "
            f"{held / total:.3g} of those of {total} episodes; at most {rules.max_hold_share:g} are allowed "
            "(max_hold_share)"
        )
    counts = {
        "max_stop_share": ("the guard has stopped the robot", [each.stopped for each in episodes]),
        "max_intervention_share": ("a person has taken over", [each.driven for each in episodes]),
    }
    for name, (what, where) in counts.items():
        if sum(where) / total > (limit := getattr(rules, name)):
            found.append(f"after {so_far}, {what} in {sum(where)}; at most {limit:g} of {total} are allowed ({name})")
    slow = [each.latency_ms for each in episodes if each.latency_ms is not None and each.latency_ms > rules.latency_ms]
    if len(slow) / total > MOST_SLOW:
        found.append(
            f"after {so_far}, {len(slow)} had answers slower than {rules.latency_ms:g} ms, up to {max(slow):.0f} ms; "
            f"at most half of {total} may have them (latency_ms)"
        )
    return found


def summary(rules: CanaryRules, episodes: Sequence[CanaryEpisode]) -> str:
    """Return the numbers of the canary so far beside their limits; there is at least one episode."""
    count = len(episodes)
    timed = [each.latency_ms for each in episodes if each.latency_ms is not None]
    parts = [
        f"{fsum(each.refused / each.steps for each in episodes) / count:.3g} of the control steps refused "
        f"(at most {rules.max_hold_share:g})",
        f"stopped in {sum(each.stopped for each in episodes)} (at most {rules.max_stop_share:g} of them)",
        f"a person in {sum(each.driven for each in episodes)} (at most {rules.max_intervention_share:g} of them)",
        f"answers in {float(np.median(timed)):.0f} ms in the middle episode (at most {rules.latency_ms:g} ms)"
        if timed
        else "no answer times in the recordings, so latency was not compared",
    ]
    if 0 < len(timed) < count:
        parts.append(f"{count - len(timed)} episodes without answer times")
    return f"{count} episodes: {'; '.join(parts)}"


def _slowest(latency_ms: Float[np.ndarray, " N"]) -> float | None:
    known = np.sort(latency_ms[~np.isnan(latency_ms)])
    return float(known[ceil(SLOWEST * len(known)) - 1]) if len(known) else None
