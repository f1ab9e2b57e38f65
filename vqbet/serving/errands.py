"""Errands: questions to a remote policy, so that whoever asks does not wait for the answer.

An errand belongs to one episode. An answer can reach only the errand that asked for it, so that a plan of an earlier
episode or connection has nowhere to arrive.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, final

import numpy as np
from jaxtyping import Float

from vqbet.contract import VqbetError
from vqbet.serving.cameras import Shown
from vqbet.serving.client import Reply
from vqbet.serving.handshake import Handshake

Clock = Callable[[], float]  # seconds, monotonic


class Remote(Protocol):
    """The part of `client.RemotePolicy` that a player calls. timeout_s: most time that `plan` takes."""

    timeout_s: float

    @property
    def handshake(self) -> Handshake: ...

    def start(self, seed: int, goal: np.ndarray | None = None, *, trial: str = "") -> None: ...

    def plan(self, observed: Float[np.ndarray, "T D"], step: int, cameras: Sequence[Shown] = ()) -> Reply: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """Reply to a question, or the sentence of its failure. taken_s: from question to answer."""

    reply: Reply | None
    trouble: str
    taken_s: float


class Errand(Protocol):
    """Questions of one episode, one at a time."""

    busy: bool  # a question is on its way
    trouble: str  # why no question can be asked any more; "" where one can

    def ask(self, observed: Float[np.ndarray, "T D"], step: int, cameras: Sequence[Shown] = ()) -> None: ...

    def answers(self, wait_s: float = 0.0) -> list[Arrival]:
        """Return the answers that arrived since the last call; waits for the first for at most `wait_s`."""

    def end(self) -> None:
        """Ask nothing more; returns at once."""

    def ended(self, timeout_s: float) -> bool:
        """Wait until the policy is free for another errand; return whether it is."""


@final
class Threaded:
    """Errand of a thread of its own, so that whoever asks goes on."""

    def __init__(self, policy: Remote, clock: Clock = time.monotonic) -> None:
        self.busy, self.trouble = False, ""
        self._policy, self._clock = policy, clock
        self._questions: queue.SimpleQueue[tuple[np.ndarray, int, Sequence[Shown], float] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="vqbet plans", daemon=True)
        self._thread.start()

    def ask(self, observed: Float[np.ndarray, "T D"], step: int, cameras: Sequence[Shown] = ()) -> None:
        self.busy = True
        self._questions.put((observed, step, cameras, self._clock()))

    def answers(self, wait_s: float = 0.0) -> list[Arrival]:
        found: list[Arrival] = []
        try:
            found.append(self._answers.get(timeout=wait_s) if wait_s > 0 and self.busy else self._answers.get_nowait())
        except queue.Empty:
            return found
        self.busy = False
        self.trouble = found[0].trouble
        return found

    def end(self) -> None:
        self._questions.put(None)

    def ended(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            observed, step, cameras, asked_s = question
            answer = answered(self._policy, observed, step, cameras)
            self._answers.put(replace(answer, taken_s=self._clock() - asked_s))
            if answer.trouble:
                return


@final
class Simulated:
    """Errand on a simulated clock: a question is answered before `ask` returns, and seen `latency_s()` later."""

    def __init__(self, policy: Remote, clock: Clock, latency_s: Callable[[], float] = lambda: 0.0) -> None:
        self.busy, self.trouble = False, ""
        self._policy, self._clock, self._latency_s = policy, clock, latency_s
        self._coming: list[tuple[float, Arrival]] = []

    def ask(self, observed: Float[np.ndarray, "T D"], step: int, cameras: Sequence[Shown] = ()) -> None:
        self.busy, taken_s = True, self._latency_s()
        answer = replace(answered(self._policy, observed, step, cameras), taken_s=taken_s)
        self._coming.append((self._clock() + taken_s, answer))

    def answers(self, wait_s: float = 0.0) -> list[Arrival]:
        """Return what has arrived by now; waiting takes no simulated time, but may see `wait_s` ahead."""
        now = self._clock() + wait_s
        found = [answer for due, answer in self._coming if due <= now]
        self._coming = [(due, answer) for due, answer in self._coming if due > now]
        if found:
            self.busy, self.trouble = False, found[-1].trouble
        return found

    def end(self) -> None:
        self._coming.clear()

    def ended(self, timeout_s: float) -> bool:
        return True


def answered(policy: Remote, observed: Float[np.ndarray, "T D"], step: int, cameras: Sequence[Shown]) -> Arrival:
    """Return the policy's reply, or what went wrong, whatever it was: a thread that dies says nothing."""
    try:
        reply = policy.plan(observed, step, cameras) if cameras else policy.plan(observed, step)
        return Arrival(reply, "", 0.0)
    except VqbetError as error:
        return Arrival(None, str(error), 0.0)
    except Exception as error:
        return Arrival(None, f"the plan failed: {type(error).__name__}: {error}", 0.0)
