"""Guard on the robot's side: passes or refuses each action before it is sent; numpy only.

A refused action is never repaired. The robot holds: absolute actions repeat the last one that was sent, relative ones
are zero. After `patience` consecutive refusals it stops until the next `start`. This is no rated safety function.

Every check, in the order of `Reason`, must hold: observation and action are finite; the observation is no older than
`max_age_s` and its stamp advances; the observation is within its limits; its cameras are well (`camera_watch`); an
action came in time; the action is within its limits, and within those of a first action, or of rate and acceleration;
the robot's owner allows it. Rate is the
change from the last action that was sent, a hold included. Acceleration is the change between two such changes; after
the first action of an episode and after a hold, there is none to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Float

from vqbet.contract import Spec
from vqbet.files import reading
from vqbet.serving.limits import SIGNAL, Limits, listed

__all__ = ["Decision", "Guard", "Limits", "Reason", "SignalWatch"]

REAL = frozenset("efdbhilqBHILQ")  # numpy's codes of floats and integers of at most 64 bits
Verdict = Literal["pass", "hold", "stop"]
SURPRISE = "codes.surprise"  # of a bundle's component `guard`
Workspace = Callable[[np.ndarray, np.ndarray], Any]


class Reason(StrEnum):
    """Code of a refusal, in the order of the checks."""

    NOT_FINITE = "not_finite"
    STALE_OBSERVATION = "stale_observation"
    OBSERVATION_LIMIT = "observation_limit"
    CAMERA_LIMIT = "camera_limit"
    FROZEN_CAMERA = "frozen_camera"
    UNFAMILIAR_PICTURE = "unfamiliar_picture"
    DEADLINE = "deadline"
    ACTION_LIMIT = "action_limit"
    START_JUMP = "start_jump"
    RATE = "rate"
    ACCELERATION = "acceleration"
    WORKSPACE = "workspace"


Refusal = tuple[Reason, str]


@final
@dataclass(frozen=True, slots=True)
class Decision:
    """Decision on one control step. action: to be sent now; None: send nothing. detail: a sentence about the reason."""

    verdict: Verdict
    action: Float[np.ndarray, " A"] | None
    reason: Reason | None = None
    detail: str = ""


@final
class Guard:
    """Guard of one robot; `check` once per control step. Not for several threads.

    workspace: hook of the robot's owner, called as workspace(action, observation) with read-only arrays. Anything but
    True, an exception included, refuses. counters: refusals by reason since the guard was made.
    """

    def __init__(self, limits: Limits, *, workspace: Workspace | None = None) -> None:
        self.limits, self.workspace = limits, workspace
        self.counters: dict[str, int] = {reason.value: 0 for reason in Reason}
        acted, seen = len(limits.low), len(limits.observation_low)
        self._shapes = (seen,), (acted,)
        self._relative = limits.spec.action_kind == "relative"
        # One vector holds all numbers of a step: D of the observation, then A each of the action, of its change (of
        # the action again, where it is the first) and of the change of that. One comparison with two vectors of limits
        # takes microseconds.
        zero = np.zeros(acted)
        least, most = (limits.observation_low, limits.low), (limits.observation_high, limits.high)
        self._first = _bounds((*least, limits.start_low, zero), (*most, limits.start_high, zero))
        self._later = _bounds((*least, -limits.rate, -limits.acceleration), (*most, limits.rate, limits.acceleration))
        self._values, self._inside = np.zeros(seen + 3 * acted), np.zeros((2, seen + 3 * acted), bool)
        self._observed, self._rest = self._values[:seen], self._values[seen:]
        self._action, self._change, self._turn = self._rest.reshape(3, acted)
        self._now, self._before = self._rest[: 2 * acted], np.zeros(2 * acted)  # an action and its change
        self._last, self._moved = self._before.reshape(2, acted)
        self.start()

    def start(self) -> None:
        """Start an episode: nothing was sent, and a stop is over."""
        self.stopped = False
        self._known = 0  # 0: nothing was sent. 1: the last action is known. 2: the change that it made, too.
        self._refused = 0  # consecutive refusals
        self._stamp = -math.inf
        self._kind = np.dtype(np.float32)
        self._reason: tuple[Reason, str] | tuple[()] = ()
        self._last.fill(0)

    def sent(self, action: Float[np.ndarray, " A"]) -> None:
        """Note an action that was sent unchecked, such as a person's; the next one is compared with it.

        After anything but A finite numbers, the next action is checked like a first one.
        """
        self._known = int(_real(action, self._shapes[1]) and bool(np.isfinite(action).all()))
        if self._known:
            self._last[:], self._kind = action, action.dtype

    def check(
        self,
        action: Float[np.ndarray, " A"] | None,
        observation: Float[np.ndarray, " D"],
        *,
        age_s: float,
        observed_s: float | None = None,
        cameras: Refusal | None = None,
    ) -> Decision:
        """Return the decision on `action`; None: none arrived in time. Raises nothing, whatever the arguments hold.

        age_s: age of the observation. observed_s: its stamp, on any clock; it must advance from check to check.
        cameras: what is wrong with the pictures; None: nothing.
        """
        if self.stopped:
            return self._held("stop")
        refusal = self._refusal(action, observation, self._stale(age_s, observed_s), cameras)
        if refusal is None:
            assert action is not None, "where none came, the deadline was missed"
            self._passed(action.dtype)
            return Decision("pass", action)
        self._reason = refusal
        self.counters[refusal[0].value] += 1
        self._refused += 1
        self.stopped = self._refused >= self.limits.patience
        self._known = min(self._known, 1)
        if self._relative:
            self._last.fill(0)
        return self._held("stop" if self.stopped else "hold")

    def _stale(self, age_s: float, observed_s: float | None) -> str:
        """Return why the observation is stale; empty where it is not."""
        before = self._stamp
        if observed_s is not None and observed_s > before:
            self._stamp = observed_s
        if not 0 <= age_s <= self.limits.max_age_s:
            return f"the observation is {age_s:g} s old, expected 0 to {self.limits.max_age_s:g} s"
        if observed_s is not None and not observed_s > before:
            return f"the stamp of the observation is {observed_s:g} s, that of the one before {before:g} s"
        return ""

    def _refusal(self, action: Any, observation: Any, stale: str, cameras: Refusal | None) -> Refusal | None:
        """Return the first check that does not hold. Leaves the numbers of this step in `_values`."""
        seen, acted = self._shapes
        if not _real(observation, seen):
            return Reason.NOT_FINITE, f"observation: expected {seen[0]} real numbers, got {_described(observation)}"
        if action is not None and not _real(action, acted):
            return Reason.NOT_FINITE, f"action: expected {acted[0]} real numbers, got {_described(action)}"
        low, high = self._later if self._known else self._first
        self._observed[:] = observation
        if action is None:
            self._rest[:] = low[seen[0] :]  # within its limits, whatever they are
        else:
            self._compare(action)
        np.greater_equal(self._values, low, out=self._inside[0])  # False for NaN
        np.less_equal(self._values, high, out=self._inside[1])
        if stale or action is None or cameras or b"\0" in self._inside.tobytes():  # a tenth of the time of `all`
            return self._why(stale, cameras)
        return self._forbidden(action, observation) if self.workspace is not None else None

    def _compare(self, action: np.ndarray) -> None:
        self._action[:] = action
        if self._known:
            np.subtract(self._action, self._last, out=self._change)
        else:
            self._change[:] = action
        if self._known == 2:
            np.subtract(self._change, self._moved, out=self._turn)
        else:
            self._turn.fill(0)

    def _passed(self, kind: np.dtype) -> None:
        self._before[:] = self._now
        self._known, self._refused, self._kind = min(self._known + 1, 2), 0, kind

    def _held(self, verdict: Verdict) -> Decision:
        held = self._last.astype(self._kind) if self._relative or self._known else None
        return Decision(verdict, held, *self._reason)

    def _why(self, stale: str, cameras: Refusal | None) -> Refusal:
        """Return the first check that does not hold for the numbers of this step, of which one does not."""
        (seen,), (acted,) = self._shapes
        finite, spec = np.isfinite(self._values[: seen + acted]), self.limits.spec
        if not finite.all():
            place = int(finite.argmin())
            return Reason.NOT_FINITE, f"{_named(spec, place)} is {self._values[place]:g}"
        if stale:
            return Reason.STALE_OBSERVATION, stale
        inside = np.asarray(self._inside.all(0))
        if cameras and inside[:seen].all():
            return cameras
        if inside.all():
            return Reason.DEADLINE, "no action arrived in time"
        place = int(inside.argmin())
        value, low, high = (
            float(part[place]) for part in (self._values, *(self._later if self._known else self._first))
        )
        if place < seen:
            return Reason.OBSERVATION_LIMIT, f"{_named(spec, place)} is {value:g}, its limits are {low:g} to {high:g}"
        part, channel = divmod(place - seen, acted)
        name = _named(spec, seen + channel)
        if part == 0:
            return Reason.ACTION_LIMIT, f"{name} is {value:g}, its limits are {low:g} to {high:g}"
        if not self._known:
            return Reason.START_JUMP, f"{name} is {value:g} at the start, expected {low:g} to {high:g}"
        if part == 1:
            return Reason.RATE, f"{name} changes by {abs(value):g} in one control step, at most {high:g} are allowed"
        return (
            Reason.ACCELERATION,
            f"{name} changes its rate by {abs(value):g} per control step, at most {high:g} are allowed",
        )

    def _forbidden(self, action: np.ndarray, observation: np.ndarray) -> Refusal | None:
        """Return the refusal of the robot's owner, if any."""
        assert self.workspace is not None
        try:
            answer = self.workspace(_fixed(action), _fixed(observation))
        except Exception as error:  # of any code: a hook that fails has allowed nothing
            return Reason.WORKSPACE, f"the workspace hook raised {type(error).__name__}: {reading.cut(str(error))}"
        if answer is True or (isinstance(answer, np.bool_) and answer):
            return None
        return Reason.WORKSPACE, f"the workspace hook returned {reading.short(answer)}, expected True"


@final
class SignalWatch:
    """Signals of a policy's plans in one episode, compared with training: they warn, and never refuse.

    quantiles: by signal, quantiles over training (`policies.envelope.LEVELS`), of which the last warns. surprise: K x K
    table, -log p of a plan's first code after that of the plan before; None where the codes are not watched.
    """

    def __init__(
        self, quantiles: Mapping[str, Sequence[float]], surprise: Float[np.ndarray, "K K"] | None = None
    ) -> None:
        self._most = {name: float(values[-1]) for name, values in quantiles.items()}
        self._surprise = surprise
        self.start()

    @classmethod
    def of(cls, component: Mapping[str, np.ndarray]) -> SignalWatch:
        """Return the watch of a bundle's component `guard`; it never warns where the component is empty."""
        return cls(listed(component, SIGNAL), component.get(SURPRISE))

    def start(self) -> None:
        """Start an episode."""
        self._code: int | None = None

    def see(self, signals: Mapping[str, float], codes: Sequence[int]) -> dict[str, float]:
        """Return the signals of a new plan and, from the second plan on, "surprise". codes: the plan's Q codes."""
        found = {name: float(value) for name, value in signals.items()}
        if self._surprise is not None:
            if self._code is not None:
                found["surprise"] = float(self._surprise[self._code, codes[0]])
            self._code = int(codes[0])
        return found

    def warnings(self, signals: Mapping[str, float]) -> list[str]:
        """Return the names of the signals that are above what training showed, or not finite."""
        return [name for name, value in signals.items() if name in self._most and not value <= self._most[name]]


def _bounds(low: Sequence[np.ndarray], high: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(low), np.concatenate(high)


def _real(value: Any, shape: tuple[int]) -> bool:
    return isinstance(value, np.ndarray) and value.shape == shape and value.dtype.char in REAL


def _described(value: Any) -> str:
    return f"shape {value.shape} of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__


def _fixed(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _named(spec: Spec, place: int) -> str:
    """Return the name of a channel in a sentence; the observation's channels come first."""
    seen = len(spec.observation)
    kind, channel = ("observation", spec.observation[place]) if place < seen else ("action", spec.action[place - seen])
    return f"{kind} {channel.name!r} ({channel.unit})" if channel.unit else f"{kind} {channel.name!r}"
