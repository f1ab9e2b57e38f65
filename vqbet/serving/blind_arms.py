"""Arms of a plan of trials, served blind: a robot hears of a commitment, and only server and desk know the policy.

All policies are loaded before the first trial. A trial is ordered by the desk, and gets a signed statement with the
commitment to the digest of the policy that will answer. A robot's episode names the trial's code. Nothing that a robot
gets differs between the arms except their plans: handshake, keys, numbers of codes and times are the same.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, final

import numpy as np

from vqbet.contract import ServingError
from vqbet.files import reading
from vqbet.policies.familiarity import SIGNAL
from vqbet.serving.handshake import Handshake
from vqbet.serving.requests import Answer
from vqbet.serving.roster import Part
from vqbet.serving.seats import Ask, Seats, Served
from vqbet.signing.statements import Statement, commitment

if TYPE_CHECKING:
    from vqbet.signing.keys import Key

ROWS = 2  # episodes of an arm at once: the one that runs, and one that a lost connection still holds
TIMED = 20  # plans by which an arm is timed
SHARE = 0.95  # of an arm's plans are faster than its time
MARGIN = 1.25  # of the slowest arm's time


@dataclass(slots=True)
class Order:
    """A trial that the desk ordered. moved: a step after the first was answered, so the robot has moved in it."""

    trial: str
    digest: str
    key: str  # of the commitment, hexadecimal
    moved: bool = False


@dataclass(frozen=True, slots=True)
class _Arm:
    digest: str
    seats: Seats


@final
class BlindArms:
    """Policies of a plan of trials, and the trial that is ordered now.

    plan: sha256. robot: the name of the only robot that may play. key: signs statements.

    Raises ServingError where robots of one policy could not go on with the other.
    """

    def __init__(self, arms: Sequence[Served], *, plan: str, robot: str, key: Key) -> None:
        if not arms or len({each.handshake.digest for each in arms}) != len(arms):
            raise ServingError(f"expected policies of different digests, got {len(arms)} of which two are the same")
        self.plan, self.robot, self._key = plan, robot, key
        for other in arms[1:]:
            if differing := arms[0].change(other):
                raise ServingError(
                    f"the policies of plan {plan[:12]} differ in their {differing}, by which a robot would know them "
                    "apart; trials compare policies that robots can take for one another"
                )
        said = _united(arms, plan)
        self._shown = Served(arms[0].actor, said)
        made = [
            _Arm(each.handshake.digest, Seats(Served(each.actor, said, _of_cameras(each.guard)), ROWS)) for each in arms
        ]
        self._arms = {arm.digest: arm for arm in made}
        self.pace_s = MARGIN * max(_time_s(arm.seats) for arm in made)
        self._order: Order | None = None
        self._over: set[str] = set()  # codes of trials before

    @property
    def shown(self) -> Served:
        return self._shown

    @property
    def digests(self) -> list[str]:
        return sorted(self._arms)

    @property
    def public_key(self) -> str:
        return self._key.public

    def arm(self, *, plan: str, trial: str, robot: str, nonce: str, digest: str, key: str) -> tuple[Statement, str]:
        """Serve the policy of `digest` in a trial from now on; return a statement about it, and its signature.

        A trial may be ordered again, with the same policy, until another one is. Raises ServingError, and the trial
        ordered before stays.
        """
        self._refuse(plan, trial, robot, digest, key)
        order = Order(trial, digest, key)
        before = self._order
        if before is not None and before.trial != trial:
            self._over.add(before.trial)
        self._order = order
        said = Statement(plan, trial, robot, nonce, self._commitment(order), datetime.now(UTC).isoformat())
        return said, self._key.sign(said.content())

    def part(self, robot: str, trial: str) -> Part:
        """Return the policy that was ordered for a trial."""
        if not trial:
            raise ServingError(
                "this server serves trials only; let the desk order one, and name its code with the reset: "
                "player.start(..., trial=code)"
            )
        if robot != self.robot:
            raise ServingError(
                f"trial {reading.short(trial)}: is for robot {self.robot}, this connection is of robot "
                f"{robot or 'without a name'}; connect by that name"
            )
        order = self._order
        if order is None or order.trial != trial:
            over = "is over" if trial in self._over else "was not ordered by the desk"
            raise ServingError(f"trial {reading.short(trial)}: {over}; play the trial that the desk shows")
        if order.moved:
            raise ServingError(
                f"trial {trial}: the robot has moved in it already, and a trial is played once; declare it invalid at "
                "the desk"
            )
        return Part(self._arms[order.digest].seats, self._commitment(order), _Veil(order, self))

    def _commitment(self, order: Order) -> str:
        """Return the commitment to the digest of the policy that answers in an order."""
        return commitment(order.key, self._arms[order.digest].digest)

    def _refuse(self, plan: str, trial: str, robot: str, digest: str, key: str) -> None:
        if plan != self.plan:
            raise ServingError(
                f"plan {reading.short(plan)}: this server serves the trials of plan {self.plan}; start it again: vqbet "
                "trials serve"
            )
        if robot != self.robot:
            raise ServingError(f"robot {reading.short(robot)}: the plan is for robot {self.robot}")
        if digest not in self._arms:
            raise ServingError(
                f"digest {reading.short(digest)}: is not loaded; this server has {' and '.join(self.digests)}"
            )
        if trial in self._over:
            raise ServingError(f"trial {trial}: is over: another one was ordered after it; every trial has a new code")
        before = self._order
        if before is not None and before.trial == trial and (before.digest, before.key) != (digest, key):
            raise ServingError(f"trial {trial}: was ordered with another policy before; every trial has a new code")


@final
class _Veil:
    """The veil over one trial's answers."""

    def __init__(self, order: Order, arms: BlindArms) -> None:
        self._order, self.pace_s = order, arms.pace_s
        self._digest = arms._commitment(order)

    def veiled(self, answer: Answer) -> Answer:
        """Return the answer under the commitment. Codes that are equal stay equal, and say nothing else.

        Of the signals, only whether the robot's guard must refuse a picture is left.
        """
        self._order.moved |= answer.step > 0
        written = np.asarray(answer.codes, np.int64).tobytes()
        hidden = hmac.new(bytes.fromhex(self._order.key), b"codes/" + written, hashlib.sha256).digest()
        seen = {name: 2.0 * (value > 1) for name, value in answer.signals.items() if name.startswith(SIGNAL)}
        return replace(answer, codes=(int.from_bytes(hidden[:4], "big"),), signals=seen, digest=self._digest)


def _of_cameras(guard: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in guard.items() if name.startswith("camera.")}


def _united(arms: Sequence[Served], plan: str) -> Handshake:
    """Return the handshake of all arms: under the plan's digest, with the widest limits, without signals."""
    said = [each.handshake for each in arms]
    shared = set.intersection(*(set(each.limits) for each in said))
    limits = {name: _widest(name, [each.limits[name] for each in said]) for name in sorted(shared)}
    return replace(said[0], digest=plan, reference=f"trials {plan[:12]}", limits=limits, signals={})


def _widest(name: str, limits: Sequence[Sequence[float]]) -> list[float]:
    """Return the widest of several limits; one that an arm lacks is as wide as the spec, and left out before."""
    pick = min if name.endswith("low") else max
    return [pick(each) for each in zip(*limits, strict=True)]


def _time_s(seats: Seats) -> float:
    """Return how long the arm's plans take; the first ones, which take longer, are made before the first trial."""
    spec = seats.served.handshake.spec
    middle = {channel.name: (channel.low + channel.high) / 2 for channel in spec.observation}
    goal = np.array([middle[name] for name in seats.served.handshake.goal], np.float32)
    row = seats.take(0, goal if len(goal) else None)
    observed = np.repeat(np.array([list(middle.values())], np.float32), seats.served.handshake.window, axis=0)
    black = {camera.name: np.zeros((1, *camera.shape), np.uint8) for camera in spec.cameras}
    shown = black, (0,) * len(observed)
    taken: list[float] = []
    for step in range(2 * TIMED):
        began = time.perf_counter()
        seats.act([Ask(row, observed, "robot", step, *shown)])
        taken.append(time.perf_counter() - began)
    seats.release(row)
    return float(np.quantile(taken[TIMED:], SHARE))
