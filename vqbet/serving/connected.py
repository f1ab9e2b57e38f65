"""State of a policy server: its open connections, and the episode that runs on each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import final

from websockets.asyncio.server import ServerConnection

from vqbet.serving.requests import Dialect
from vqbet.serving.roster import Part
from vqbet.serving.seats import Seats, Served


@final
@dataclass(slots=True)
class ServedEpisode:
    """A running episode. own: its client counts steps, so that the bundle's rule runs on the server."""

    part: Part
    row: int
    seed: int
    session: str
    own: bool

    @property
    def seats(self) -> Seats:
        return self.part.seats


@final
@dataclass(slots=True, eq=False)
class ConnectedRobot:
    """One connection. named: the digest that the robot named when it connected, "" for none."""

    socket: ServerConnection
    name: str
    named: str
    met: Served
    path: str
    dialect: Dialect
    talk: asyncio.Task[None]
    due: float  # time of the loop at which it is let go; moved on with every frame
    late: bool = False
    asked: bool = False  # whether a request has shown the dialect
    episode: ServedEpisode | None = None
    total_ms: float | None = None
