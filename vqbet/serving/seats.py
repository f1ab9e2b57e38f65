"""Episodes behind a server: one policy with a fixed number of rows, one row per running episode.

Rows do not affect one another. Requests that are there at the same time are computed in one call of the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import cast, final

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import ServingError
from vqbet.policies import familiarity
from vqbet.policies.actor import SIGNALS, Actor, Planned, SeeingPlanner
from vqbet.policies.familiarity import Acquaintance
from vqbet.serving.cameras import Shown
from vqbet.serving.channels import limits_of
from vqbet.serving.guard import SignalWatch
from vqbet.serving.handshake import Handshake
from vqbet.serving.limits import LIMIT, SIGNAL, listed
from vqbet.serving.requests import Answer, Execute, Request

GUARD = "guard"  # component of a bundle: numbers of the robot's guard
FREE_TO_CHANGE = {"digest", "reference", "limits", "signals"}  # from one champion to the next, for a robot that stays


@dataclass(frozen=True, slots=True)
class Served:
    """A policy and what is said of it. guard: the component of its bundle; empty where it has none."""

    actor: Actor
    handshake: Handshake
    guard: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls, actor: Actor, digest: str, reference: str, components: Mapping[str, Mapping[str, np.ndarray]] | None = None
    ) -> Served:
        """Return what to serve. components: of the bundle, for the numbers of its guard."""
        guard, planner = (components or {}).get(GUARD, {}), actor.planner
        said = Handshake(
            digest=digest,
            reference=reference,
            spec=actor.spec,
            window=planner.window,
            chunk=planner.chunk,
            execute=actor.execute,
            goal=actor.goal,
            absolute=actor.absolute,
            limits=listed(guard, LIMIT),
            signals=listed(guard, SIGNAL),
        )
        return cls(actor, said, guard)

    def change(self, other: Served) -> str:
        """Return the first field in which robots of one policy could not go on with the other; "" if there is none."""
        mine, theirs = self.handshake, other.handshake
        names = (one.name for one in fields(Handshake) if one.name not in FREE_TO_CHANGE)
        return next((name for name in names if getattr(mine, name) != getattr(theirs, name)), "")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to one row. observed: the last T observations, oldest first, float32.

    rule: "server", the bundle's rule, one request per control step; "chunk", a new plan as it would be executed;
    "robot", a new plan, neither clamped nor converted. step: of the new plan. pictures, places: see `Request`.
    """

    row: int
    observed: Float[np.ndarray, "T D"]
    rule: Execute | str
    step: int
    pictures: Shown = field(default_factory=dict)
    places: tuple[int, ...] = ()


@final
class Seats:
    """Rows of one policy. Raises ServingError or WorldError, with a sentence for the robot."""

    def __init__(self, served: Served, count: int) -> None:
        self.served, self.count = served, count
        actor = self._actor = served.actor
        self._observed, self._wanted = limits_of(actor.spec, actor.goal)
        actor.reset(np.zeros(count, np.int64), np.zeros((count, len(actor.goal)), np.float32))
        self._free = list(range(count))[::-1]
        self._seeds = np.zeros(count, np.int64)
        self._goals = np.zeros((count, len(actor.goal)), np.float32)
        self._steps = np.zeros(count, np.int64)
        self._history = np.zeros((count, actor.planner.window, len(actor.spec.observation)), np.float32)
        self._seen = np.zeros(count, bool)
        self._features = np.zeros((count, actor.planner.window, actor.features), np.float32)
        self._watches = [SignalWatch.of(served.guard) for _ in range(count)]
        self._signals: list[dict[str, float]] = [{} for _ in range(count)]  # of each row's newest plan
        self._familiar = familiarity.read(served.guard, actor.spec.cameras)
        self._met: list[dict[str, Acquaintance]] = [{} for _ in range(count)]

    @property
    def taken(self) -> int:
        return self.count - len(self._free)

    def take(self, seed: int, goal: np.ndarray | None) -> int:
        """Start an episode and return its row. goal: (C,) real numbers; None where the policy takes none."""
        if goal is not None:
            self._wanted.check(goal)
        elif self._actor.goal:
            raise ServingError(
                f"goal: this policy needs {', '.join(self._actor.goal)} with the first request of an episode, got none"
            )
        if not self._free:
            raise ServingError(f"all {self.count} episodes of this server are running; start it with more rows")
        row = self._free[-1]
        goals = np.zeros((1, 0), np.float32) if goal is None else np.asarray(goal, np.float32)[None]
        self._actor.restart(np.array([row]), np.array([seed]), goals)
        self._seeds[row], self._goals[row], self._steps[row], self._seen[row] = seed, goals[0], 0, False
        self._watches[row].start()
        self._met[row] = {name: Acquaintance(known) for name, known in self._familiar.items()}
        return self._free.pop()

    def release(self, row: int) -> None:
        """End the episode of a row."""
        self._free.append(row)

    def step(self, row: int) -> int:
        """Return the number of requests of the row's episode that were answered."""
        return int(self._steps[row])

    def seen(self, row: int, state: np.ndarray) -> Float[np.ndarray, "T D"]:
        """Return the last T observations of a row, the new one included. state: (D,), or all T.

        Nothing is kept until `act` has answered. Raises WorldError for observations beyond their limits.
        """
        if state.ndim == 2:
            self._observed.check(state, steps=self._history.shape[1])
            return state.astype(np.float32)
        self._observed.check(state)
        newest = state.astype(np.float32)
        if not self._seen[row]:
            return np.repeat(newest[None], self._history.shape[1], axis=0)
        return np.concatenate([self._history[row, 1:], newest[None]])

    def shown(self, row: int, request: Request) -> tuple[Shown, tuple[int, ...]]:
        """Return the new pictures of a row and the places of all T. Raises ServingError for a place without one."""
        steps = self._history.shape[1]
        if request.cameras and not request.places:  # of a client that sends one step at a time
            before = range(1 - steps, 0) if self._seen[row] else [0] * (steps - 1)
            return {name: picture[None] for name, picture in request.cameras.items()}, (*before, 0)
        if not self._seen[row] and min(request.places, default=0) < 0:
            raise ServingError(f"pictures: {min(request.places)} is of the request before, and this is the first one")
        return request.cameras, request.places

    def act(self, asks: Sequence[Ask]) -> list[Answer | Exception]:
        """Return an answer per request, each of another row; an exception where a row could not be computed."""
        ruled = [ask for ask in asks if ask.rule == "server"]
        fresh = [ask for ask in asks if ask.rule != "server"]
        answers = dict(zip(map(id, ruled), self._each(ruled, self._ahead), strict=True))
        answers |= dict(zip(map(id, fresh), self._each(fresh, self._anew), strict=True))
        return [answers[id(ask)] for ask in asks]

    def _each(self, asks: Sequence[Ask], call: Callable[[Sequence[Ask]], list[Answer]]) -> list[Answer | Exception]:
        """Return the answers of one call; where it fails, of one call per row, so that only the faulty row fails."""
        if not asks:
            return []
        try:
            return [*call(asks)]
        except Exception as error:
            if len(asks) > 1:
                return [answer for ask in asks for answer in self._each([ask], call)]
            return [error]

    def _ahead(self, asks: Sequence[Ask]) -> list[Answer]:
        """Return answers by the bundle's rule."""
        rows, observed = self._stacked(asks)
        return self._answers(asks, self._actor.ahead(observed, rows), self._steps[rows], observed)

    def _anew(self, asks: Sequence[Ask]) -> list[Answer]:
        """Return new plans; those for "chunk" as they would be executed."""
        rows, observed = self._stacked(asks)
        steps = np.array([ask.step for ask in asks])
        plan = self._actor.plan(observed, self._goals[rows], self._seeds[rows], steps)
        executed = self._actor.executed(observed[:, -1], plan.chunk)
        played = np.array([ask.rule == "chunk" for ask in asks])[:, None, None]
        return self._answers(asks, plan._replace(chunk=np.where(played, executed, plan.chunk)), steps, observed)

    def _stacked(self, asks: Sequence[Ask]) -> tuple[Int[np.ndarray, " B"], Float[np.ndarray, "B T D+F"]]:
        """Return rows and observations, with the features of their pictures; new pictures are encoded in one call."""
        rows, observed = np.array([ask.row for ask in asks]), np.array([ask.observed for ask in asks])
        if not self._actor.features:
            return rows, observed
        new = [ask.pictures for ask in asks if ask.pictures]
        pool = self._features[rows].reshape(-1, self._actor.features)  # T of each row, then the new ones
        if new:
            together = {name: np.concatenate([each[name] for each in new]) for name in new[0]}
            pool = np.concatenate([pool, cast(SeeingPlanner, self._actor.planner).see(together)])
        steps, first = self._history.shape[1], len(asks) * self._history.shape[1]
        places = np.zeros((len(asks), steps), np.int64)
        for number, ask in enumerate(asks):
            of = np.array(ask.places)
            places[number] = np.where(of < 0, (number + 1) * steps + of, first + of)
            first += len(next(iter(ask.pictures.values()))) if ask.pictures else 0
        return rows, np.concatenate([observed, pool[places]], axis=2)

    def _answers(self, asks: Sequence[Ask], plan: Planned, steps: np.ndarray, observed: np.ndarray) -> list[Answer]:
        chunk = np.asarray(plan.chunk, np.float32)
        if not np.isfinite(chunk).all():
            raise ServingError("the plan has numbers that are not finite")
        answers: list[Answer] = []
        for place, ask in enumerate(asks):
            codes = tuple(plan.tags[place].tolist())
            if ask.rule != "server" or self._actor.execute != "chunk" or steps[place] % len(chunk[place]) == 0:
                signals = dict(zip(SIGNALS, plan.signals[place].tolist(), strict=False))
                self._signals[ask.row] = self._watches[ask.row].see(signals, codes) if codes else signals
            answers.append(
                Answer(
                    actions=chunk[place],
                    step=int(steps[place]),
                    seed=int(self._seeds[ask.row]),
                    codes=codes,
                    signals={**self._signals[ask.row], **self._shares(ask)},
                    digest=self.served.handshake.digest,
                )
            )
            self._history[ask.row], self._seen[ask.row] = ask.observed, True
            self._features[ask.row] = observed[place, :, self._history.shape[2] :]
            self._steps[ask.row] += 1
        return answers

    def _shares(self, ask: Ask) -> dict[str, float]:
        """Return by camera how far from training its newest pictures are, as a share of what is allowed."""
        met = self._met[ask.row]
        for name, pictures in ask.pictures.items():
            if name in met:
                met[name].see(pictures)
        return {familiarity.SIGNAL + name: each.share for name, each in met.items()}
