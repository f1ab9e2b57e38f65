"""Policies of a server: which one acts in the episode that begins, and what the robot hears of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

from vqbet.contract import ServingError
from vqbet.files import reading
from vqbet.serving.requests import Answer
from vqbet.serving.seats import Seats, Served


class Veil(Protocol):
    """Choice of the policy that acts for a robot, without showing the choice."""

    pace_s: float  # an answer leaves this long after its request, at the earliest

    def veiled(self, answer: Answer) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A policy for one episode. digest: as the robot hears it. veil: of a blind trial."""

    seats: Seats
    digest: str
    veil: Veil | None = None


class Roster(Protocol):
    """Policies of a server. shown: the handshake's policy."""

    @property
    def shown(self) -> Served: ...

    def part(self, robot: str, trial: str) -> Part:
        """Return the policy for an episode of a robot. Raises ServingError with a sentence for the robot."""


@final
class Alone:
    """Roster of a server with one policy, under its own digest."""

    def __init__(self, served: Served, count: int) -> None:
        self._seats = Seats(served, count)

    @property
    def shown(self) -> Served:
        return self._seats.served

    def part(self, robot: str, trial: str) -> Part:
        if trial:
            raise ServingError(
                f"trial {reading.short(trial)}: this server serves one policy and no trials; start it by vqbet trials "
                "serve"
            )
        return Part(self._seats, self.shown.handshake.digest)
