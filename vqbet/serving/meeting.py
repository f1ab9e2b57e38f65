"""Requests of several robots that are there at the same time, computed in one call of their policy."""

from __future__ import annotations

import asyncio
import time
from typing import final

from vqbet.serving.metrics import Metrics
from vqbet.serving.requests import Answer
from vqbet.serving.seats import Ask, Seats

Computed = asyncio.Future[tuple[Answer, float]]  # an answer, and the seconds of the call that it came from


@final
class Meeting:
    """Place where requests wait for the others of the same turn of the event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._waiting: list[tuple[Seats, Ask, Computed]] = []

    async def computed(self, seats: Seats, ask: Ask, *, alone: bool) -> tuple[Answer, float]:
        """Return the answer, and the seconds of the call that it came from. Raises what `Seats.act` returns.

        alone: only one episode runs. Nothing can meet its request then, which is computed at once: that saves two turns
        of the loop.
        """
        loop = asyncio.get_running_loop()
        future: Computed = loop.create_future()
        self._waiting.append((seats, ask, future))
        if alone:
            self._compute()
        elif len(self._waiting) == 1:
            loop.call_soon(self._compute)  # after all connections with a request in this turn
        return await future

    def _compute(self) -> None:
        """Compute what waits: one call per policy, of which there are two for a while after a switch."""
        waiting = [one for one in self._waiting if not one[2].done()]  # a robot that is gone has lost its row
        self._waiting = []
        for seats in {id(seats): seats for seats, _, _ in waiting}.values():
            group = [(ask, future) for owner, ask, future in waiting if owner is seats]
            began = time.perf_counter()
            answers = seats.act([ask for ask, _ in group])
            policy_s = time.perf_counter() - began
            self._metrics.count("calls")
            self._metrics.policy.observe(policy_s)
            for (_, future), answer in zip(group, answers, strict=True):
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result((answer, policy_s))
