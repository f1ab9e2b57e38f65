"""Oracle of the guard in plain Python, written from the guard's description alone, and generated control steps.

The numbers of limits and actions are multiples of 1/64, so that limits are met exactly, and missed by one float32.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from vqbet.contract import Channel, Spec
from vqbet.serving.guard import Guard, Limits, Reason
from vqbet.serving.handshake import Handshake

Kind = Literal["absolute", "relative"]
HZ, GRID = 16.0, 64
BROKEN = (math.nan, math.inf, -math.inf)
EPISODE = 25  # control steps


@dataclass(frozen=True)
class Step:
    """What a guard is shown in one control step. allowed: answer of the workspace hook; an exception is raised."""

    action: np.ndarray | None
    observation: np.ndarray
    age_s: float
    observed_s: float
    allowed: Any = True
    cameras: tuple[Reason, str] | None = None  # what is wrong with its pictures


@dataclass
class Oracle:
    """The rules, one number after the other."""

    limits: Mapping[str, list[float]]
    max_age_s: float
    patience: int
    relative: bool
    refusals: int = 0
    stopped: bool = False
    stamp: float = -math.inf
    sent: list[list[float]] = field(default_factory=list)  # since the last hold, which leaves one action at most

    def start(self) -> None:
        self.refusals, self.stopped, self.stamp, self.sent = 0, False, -math.inf, []

    def check(self, step: Step) -> tuple[str, str, list[float] | None]:
        """Return verdict, reason, and the action to be sent."""
        asked = None if step.action is None else step.action.tolist()
        if self.stopped:
            return "stop", "", self.held()
        reason = self.reason(asked, step.observation.tolist(), step)
        self.stamp = max(self.stamp, step.observed_s)
        if not reason and asked is not None:
            self.refusals = 0
            self.sent.append(asked)
            return "pass", "", asked
        self.refusals += 1
        self.stopped = self.refusals == self.patience
        if self.sent:
            self.sent = [[0.0] * len(self.sent[-1])] if self.relative else self.sent[-1:]
        return "stop" if self.stopped else "hold", reason, self.held()

    def held(self) -> list[float] | None:
        if self.relative:
            return [0.0] * len(self.limits["low"])
        return self.sent[-1] if self.sent else None

    def reason(self, asked: list[float] | None, seen: list[float], step: Step) -> str:
        if not all(math.isfinite(number) for number in seen + (asked or [])):
            return "not_finite"
        if not 0 <= step.age_s <= self.max_age_s or not step.observed_s > self.stamp:
            return "stale_observation"
        if not self.between("observation_low", seen, "observation_high"):
            return "observation_limit"
        if step.cameras:
            return str(step.cameras[0])
        if asked is None:
            return "deadline"
        if not self.between("low", asked, "high"):
            return "action_limit"
        if not self.sent:
            if not self.between("start_low", asked, "start_high"):
                return "start_jump"
        else:
            moves = [[now - then for now, then in zip(asked, self.sent[-1], strict=True)]]
            if any(abs(move) > most for move, most in zip(moves[0], self.limits["rate"], strict=True)):
                return "rate"
            if len(self.sent) > 1:
                moves.append([now - then for now, then in zip(self.sent[-1], self.sent[-2], strict=True)])
                turns = [abs(new - old) for new, old in zip(*moves, strict=True)]
                if any(turn > most for turn, most in zip(turns, self.limits["acceleration"], strict=True)):
                    return "acceleration"
        return "" if step.allowed is True else "workspace"

    def between(self, low: str, values: list[float], high: str) -> bool:
        bounds = zip(self.limits[low], values, self.limits[high], strict=True)
        return all(least <= value <= most for least, value, most in bounds)


def spec(actions: int, observations: int, *, kind: Kind = "absolute") -> Spec:
    """Return a spec of channels between -1 and 1, of which the last observation has no unit."""
    return Spec(
        "guarded",
        tuple(
            Channel(f"o{place}", "m" if place < observations - 1 else "", -1.0, 1.0) for place in range(observations)
        ),
        tuple(Channel(f"a{place}", "m", -1.0, 1.0) for place in range(actions)),
        HZ,
        kind,
        "table",
    )


def handshake(of: Spec, limits: Mapping[str, list[float]] | None = None) -> Handshake:
    return Handshake("0" * 64, "guarded@champion", of, 1, 4, "chunk", limits=limits or {})


def drawn(rng: np.random.Generator, actions: int, observations: int, kind: Kind) -> Limits:
    """Return limits drawn on the grid."""

    def grid(low: int, high: int, count: int) -> list[float]:
        return (rng.integers(low, high, count) / GRID).tolist()

    return Limits.of(
        handshake(
            spec(actions, observations, kind=kind),
            {
                "rate": grid(2, 24, actions),
                "acceleration": grid(2, 24, actions),
                "start_low": grid(-40, -4, actions),
                "start_high": grid(4, 40, actions),
                "observation_low": grid(-64, -32, observations),
                "observation_high": grid(32, 64, observations),
            },
        ),
        {"patience": int(rng.integers(1, 4))},
    )


def steps(rng: np.random.Generator, limits: Limits, oracle: Oracle) -> Iterator[Step]:
    """Yield the steps of one episode: most of them near what is allowed, some at its edge, some far beyond.

    They go on from what the oracle saw sent. The episode ends two steps after a stop.
    """
    time_s, left = 0.0, EPISODE
    while left:
        left = min(left - 1, 2) if oracle.stopped else left - 1
        seen = np.floor(rng.uniform(limits.observation_low, limits.observation_high) * GRID) / GRID
        age_s = float(rng.choice([0.0, limits.max_age_s]))
        step = Step(_near(rng, limits, oracle.sent[-2:]), seen.astype(np.float32), age_s, time_s)
        time_s += 1 / HZ
        yield _spoiled(rng, step, limits) if rng.random() < 0.3 else step


def _near(rng: np.random.Generator, limits: Limits, sent: list[list[float]]) -> np.ndarray:
    """Return an action that is almost always allowed after the last two that were sent."""
    if not sent:
        wanted = rng.uniform(limits.start_low, limits.start_high)
    else:
        before = np.subtract(sent[1], sent[0]) if len(sent) == 2 else 0.0
        turn = rng.uniform(-1.01, 1.01, len(limits.low)) * limits.acceleration
        wanted = sent[-1] + np.clip(before + turn, -limits.rate, limits.rate)
    return np.clip(np.round(wanted * GRID) / GRID, limits.low, limits.high).astype(np.float32)


def _spoiled(rng: np.random.Generator, step: Step, limits: Limits) -> Step:
    assert step.action is not None
    action, seen = step.action.copy(), step.observation.copy()
    one, other = int(rng.integers(len(action))), int(rng.integers(len(seen)))
    fields: dict[str, Any] = {"action": action, "observation": seen, "age_s": step.age_s, "observed_s": step.observed_s}
    kind = int(rng.integers(11))
    if kind == 0:
        (action if rng.random() < 0.5 else seen)[0] = rng.choice(BROKEN)
    elif kind == 1:
        fields["age_s"] = float(rng.choice([limits.max_age_s * 1.001, -0.001, math.nan, math.inf]))
    elif kind == 2:
        fields["observed_s"] = float(rng.choice([step.observed_s - 1 / HZ, -1.0, math.nan]))
    elif kind == 3:
        seen[other] = _at(rng, limits.observation_low[other], limits.observation_high[other])
    elif kind == 4:
        fields["action"] = None
    elif kind == 5:
        action[one] = _at(rng, limits.low[one], limits.high[one])
    elif kind == 6:
        action[one] = _at(rng, limits.start_low[one], limits.start_high[one])
    elif kind == 7:
        action[one] = _at(rng, action[one] - limits.rate[one], action[one] + limits.rate[one])
    elif kind == 10:
        reasons = (Reason.CAMERA_LIMIT, Reason.FROZEN_CAMERA, Reason.UNFAMILIAR_PICTURE)
        fields["cameras"] = (reasons[int(rng.integers(3))], "it is blind")
        fields["action"] = action if rng.random() < 0.5 else None
    elif kind == 8:
        fields["action"] = rng.uniform(-1.2, 1.2, len(action)).astype(np.float32)
    else:
        fields["allowed"] = (False, None, 1, ValueError("beneath the table"))[int(rng.integers(4))]
    return Step(**fields)


def _at(rng: np.random.Generator, low: float, high: float) -> np.float32:
    """Return a number at a limit, or next to it on either side."""
    edge = np.float32(rng.choice([low, high]))
    return (edge, np.nextafter(edge, np.float32(-9)), np.nextafter(edge, np.float32(9)))[int(rng.integers(3))]


def campaign(actions: int, seed: int, sizes: Sequence[tuple[int, int]] = ((1, 1), (2, 3), (6, 8))) -> Counter[str]:
    """Compare guard and oracle on this many generated actions; return how many had each outcome.

    Keys: a reason, "pass", "latched" after a stop, and the faults "unsafe passed", "safe refused", "another reason" and
    "another action".
    """
    rng, told = np.random.default_rng(seed), Counter[str]()
    while told.total() < actions:
        kind: Kind = "absolute" if rng.random() < 0.5 else "relative"
        limits = drawn(rng, *sizes[int(rng.integers(len(sizes)))], kind)
        hook = _Hook()
        guard, oracle = Guard(limits, workspace=hook), _oracle(limits)
        for _ in range(8):
            guard.start()
            oracle.start()
            for step in steps(rng, limits, oracle):
                told[_compared(guard, oracle, hook, step)] += 1
    return told


class _Hook:
    """Workspace hook that answers as it was told."""

    answer: Any = True

    def __call__(self, action: np.ndarray, observation: np.ndarray) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def _oracle(limits: Limits) -> Oracle:
    named = {
        name: value.tolist() for name in limits.__slots__ if isinstance(value := getattr(limits, name), np.ndarray)
    }
    return Oracle(named, limits.max_age_s, limits.patience, limits.spec.action_kind == "relative")


def _compared(guard: Guard, oracle: Oracle, hook: _Hook, step: Step) -> str:
    latched = oracle.stopped
    hook.answer = step.allowed
    times = {"age_s": step.age_s, "observed_s": step.observed_s}
    decision = guard.check(step.action, step.observation, cameras=step.cameras, **times)
    verdict, reason, action = oracle.check(step)
    if decision.verdict != verdict:
        return (
            "unsafe passed" if decision.verdict == "pass" else "safe refused" if verdict == "pass" else "another reason"
        )
    if not latched and (decision.reason or "") != reason:
        return "another reason"
    if (None if decision.action is None else decision.action.tolist()) != action:
        return "another action"
    return "latched" if latched else reason or verdict
