"""Acting with a model: per episode, a history of observations, a goal, random numbers, and chunks to execute.

Section 3.4 of VQ-BeT (arXiv 2403.03181); the same for VQ-BeT and every baseline. numpy only: a planner computes with
torch or with another engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol, final, get_args

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import GOAL_PICTURES, BundleError, Camera, Pictures, Spec, WorldError, goal_channels
from vqbet.coordinates import goal_frame
from vqbet.coordinates.action_reference import ActionReference, Counted
from vqbet.policies.draws import uniforms
from vqbet.policies.shown import named, refuse_pictures

Execute = Literal["first", "chunk", "average"]
TERMS = ("goal", "reference", "absolute")  # the arguments that define the coordinates the planner works in
SIGNALS = ("entropy", "offset")  # of a watched planner, in the order of `Planned.signals`


class Undecided(ArithmeticError):
    """A plan with non-finite numbers. row: the first such row of the plan's batch."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} is not finite")
        self.row = row


class Planned(NamedTuple):
    """Chunks of B rows in physical units, the tags of each, and S numbers that say how sure the model was, or none."""

    chunk: Float[np.ndarray, "B H A"]
    tags: Int[np.ndarray, "B Q"]
    signals: Float[np.ndarray, "B S"]


class Planner(Protocol):
    """Interface of a trained model to `Actor`.

    channels: number of observation channels (D), action channels (A) and goal channels (C; 0: no goal). goal_steps: G.
    draws: uniform random numbers per plan. tags: Q, the numbers that identify the behaviour of a chunk; 0: none.
    One that sees pictures is a `SeeingPlanner`.
    """

    window: int
    chunk: int
    channels: tuple[int, int, int]
    goal_steps: int
    draws: int
    tags: int

    def plan(
        self,
        observation: Float[np.ndarray, "B T D+F"],
        goal: Float[np.ndarray, "B G C+F"] | None,
        uniform: Float[np.ndarray, "B draws"],
    ) -> Planned:
        """Return the next H actions in physical units, and their tags. A pure function; `uniform` is float64.

        Raises Undecided where the numbers that determine an action are not finite.
        """

    def arguments(self) -> dict[str, Any]:
        """Return the `arguments` of `from_components`; JSON-clean."""

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        """Return every tensor, by component and name."""


class SeeingPlanner(Planner, Protocol):
    """Planner that sees pictures of `cameras`: F `features` stand for those of a step, behind the D of `plan`.

    goal_features: F where the pictures of a goal stand behind the C of `plan`, else 0.
    """

    cameras: tuple[Camera, ...]
    features: int
    goal_features: int

    def see(self, pictures: Pictures) -> Float[np.ndarray, "B F"]:
        """Return the features of pictures, one row for each, whatever the number of rows. A pure function."""


@final
class Actor:
    """A `contract.Policy` around a planner. Equal observations, goals and seeds return equal actions, bit for bit.

    execute "first": plan at every step, execute the chunk's first action. "chunk": execute all H actions, then plan
    again. "average": plan at every step, execute the mean of the last H chunks' actions for this step, over the chunks
    with the same tags as the newest. Chunks with other tags are other behaviours, and a mean of both would be neither.

    reference: positions of the goal's points in the planner's frame. If set, observations and goals are transformed
    into this frame, and chunks are transformed back (`vqbet.coordinates.goal_frame`).

    absolute: the observed channels that the spec's commands are relative to. If set, the planner predicts target
    positions, and each command leads from the current observation to its target (`action_reference`).

    With cameras, pictures are encoded once and not kept: the history holds D + F numbers of each step. Pictures of
    steps that no plan will see are not encoded.

    Actions are clamped to the limits of the spec's action channels. Raises BundleError where spec, goal, reference,
    absolute and planner disagree.
    """

    def __init__(
        self,
        spec: Spec,
        planner: Planner,
        *,
        execute: Execute,
        goal: tuple[str, ...] = (),
        reference: tuple[float, ...] = (),
        absolute: Counted = (),
    ) -> None:
        self.spec, self.goal, self.execute, self.planner = spec, tuple(goal), execute, planner
        if execute not in get_args(Execute):
            raise BundleError(f"execute: expected one of {', '.join(get_args(Execute))}, got {execute!r}")
        names = ("observation", "action", "goal")
        known = goal_channels(self.goal)
        expected = (len(spec.observation), len(spec.action), len(known))
        for name, has, wants in zip(names, planner.channels, expected, strict=True):
            if has != wants:
                raise BundleError(f"normalizer: {name}: expected {wants} channels for {spec.task!r}, got {has}")
        self._eyes: SeeingPlanner | None = planner if getattr(planner, "features", 0) else None  # type: ignore[assignment]
        self.features = self._eyes.features if self._eyes is not None else 0  # F
        if (cameras := self._eyes.cameras if self._eyes is not None else ()) != spec.cameras:
            raise BundleError(
                f"cameras: expected a policy that sees what {spec.task!r} has, {named(spec.cameras)}, got one that "
                f"sees {named(cameras)}"
            )
        if reference and cameras:
            raise BundleError(f"reference: {named(cameras)} cannot be shown in the frame of a goal")
        self._goal_features = self._eyes.goal_features if self._eyes is not None else 0
        if bool(self._goal_features) != (GOAL_PICTURES in self.goal):
            raise BundleError(f"goal: {', '.join(self.goal) or 'none'}: the planner was trained with another goal")
        if unknown := sorted(set(known) - {channel.name for channel in spec.observation}):
            raise BundleError(f"goal: {', '.join(unknown)}: not among the observed channels of {spec.task!r}")
        if not np.isfinite(reference).all():
            raise BundleError(f"reference: expected finite numbers, got {reference}")
        if reference and (len(reference) != len(goal) or any(count % 2 for count in expected)):
            raise BundleError(
                f"reference: expected x and y of each of the goal's points, and pairs of channels all through, got "
                f"{len(reference)} numbers for (observation, action, goal) channels {expected}"
            )
        if absolute and len(absolute) != len(spec.action):
            raise BundleError(
                f"absolute: expected where each of {len(spec.action)} commands of {spec.task!r} counts from, got "
                f"{len(absolute)} channels"
            )
        self.reference, self.absolute = tuple(reference), tuple((name, float(reach)) for name, reach in absolute)
        try:
            seen = [channel.name for channel in spec.observation]
            self._led = ActionReference.of(self.absolute, seen) if absolute else None
        except ValueError as error:
            raise BundleError(f"absolute: {error} of {spec.task!r}") from error
        self._low, self._high = np.array([(one.low, one.high) for one in spec.action], np.float32).T
        self._start(np.zeros(0, np.int64), np.zeros((0, len(known) + self._goal_features), np.float32))

    def reset(
        self,
        seeds: Int[np.ndarray, " E"],
        goals: Float[np.ndarray, "E C"] | None = None,
        cameras: Pictures | None = None,
    ) -> None:
        """Start episodes. cameras: pictures of the goals. Raises WorldError where the goals do not fit this policy."""
        self._start(np.array(seeds, np.int64), self._fitting(seeds, goals, cameras))

    def act(
        self,
        observation: Float[np.ndarray, "B D"] | Float[np.ndarray, "B T D"],
        rows: Int[np.ndarray, " B"],
        cameras: Pictures | None = None,
    ) -> Float[np.ndarray, "B A"]:
        """Return the next actions. Raises WorldError on a misshapen or non-finite observation, on pictures that are not
        those of the spec's cameras, or a non-finite plan.

        observation (B, T, D): the last T of each episode, oldest first, which replace those that were kept here.
        Instead of the pictures in `cameras`, their features can stand in the observation: (B, D+F) or (B, T, D+F), as
        `see` returns them.
        """
        target, _ = self._decide(observation, rows, cameras)
        return self.executed(_newest(observation), target[:, None])[:, 0]

    def see(self, observation: Float[np.ndarray, "B D"], cameras: Pictures | None) -> Float[np.ndarray, "B D+F"]:
        """Return observations with the features of their pictures. Raises WorldError as `act`."""
        refuse_pictures(self.spec, len(observation), cameras)
        if cameras is None or self._eyes is None:
            return observation
        return np.concatenate([observation, self._eyes.see(cameras)], axis=1)

    def ahead(
        self,
        observation: Float[np.ndarray, "B D"] | Float[np.ndarray, "B T D"],
        rows: Int[np.ndarray, " B"],
        cameras: Pictures | None = None,
    ) -> Planned:
        """Act, and return what would follow: chunk[:, 0] are the actions of `act`, the others the rest of the newest
        chunk as it would be executed, in the end without motion. tags, signals: of the newest chunk. Raises as `act`.
        """
        target, age = self._decide(observation, rows, cameras)
        targets = self._chunks[rows, 0]
        for row in np.flatnonzero(age):
            left = targets[row, age[row] :].copy()
            still = left[-1] if self._led is not None or self.spec.action_kind == "absolute" else np.float32(0)
            targets[row, : len(left)], targets[row, len(left) :] = left, still
        targets[:, 0] = target
        signals = np.array([self._signals[row] for row in rows])
        return Planned(self.executed(_newest(observation), targets), self._tags[rows, 0, :-1], signals)

    def executed(
        self, observation: Float[np.ndarray, "B D"], targets: Float[np.ndarray, "B H A"]
    ) -> Float[np.ndarray, "B H A"]:
        """Return planned actions as they are executed from `observation` on: clamped, and with `absolute` as commands,
        of which each counts from the target before it."""
        if self._led is not None:
            first = self._led.commands(observation, targets[:, 0])
            targets = np.concatenate([first[:, None], np.diff(targets, axis=1) / self._led.reach], axis=1)
        return np.clip(targets, self._low, self._high)

    def arguments(self) -> dict[str, Any]:
        """Return the `arguments` of `policies.build`; JSON-clean."""
        return {"execute": self.execute, **self.terms(), **self.planner.arguments()}

    def terms(self) -> dict[str, Any]:
        """Return `goal`, and `reference` and `absolute` unless empty, as input of `understood`; JSON-clean."""
        counted = [list(each) for each in self.absolute]
        given = {"reference": list(self.reference), "absolute": counted}
        return {"goal": list(self.goal), **{name: value for name, value in given.items() if value}}

    def components(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        return self.planner.components()

    def restart(
        self,
        rows: Int[np.ndarray, " B"],
        seeds: Int[np.ndarray, " B"],
        goals: Float[np.ndarray, "B C"] | None = None,
        cameras: Pictures | None = None,
    ) -> None:
        """Start new episodes in B of the rows; the others go on. Raises WorldError as `reset`."""
        self._goals[rows], self._seeds[rows] = self._fitting(seeds, goals, cameras), seeds
        self._steps[rows] = 0
        self._moved()
        self._history[rows], self._chunks[rows], self._tags[rows] = 0, 0, -1

    def plan(
        self,
        observation: Float[np.ndarray, "B T D+F"],
        goals: Float[np.ndarray, "B C+F"],
        seeds: Int[np.ndarray, " B"],
        steps: Int[np.ndarray, " B"],
    ) -> Planned:
        """Return plans made at `steps` of episodes; no episode's state is read or changed.

        With `absolute`, the actions are the positions that commands shall lead to (`action_reference`). They are not
        clamped. Raises WorldError for observations that are not finite and for plans that are not.
        """
        motion = goal_frame.onto(goals, np.array(self.reference)) if self.reference else None
        return self._planned(
            observation, goals, motion, uniforms(seeds, steps, self.planner.draws), np.arange(len(seeds))
        )

    def _fitting(
        self, seeds: np.ndarray, goals: np.ndarray | None, cameras: Pictures | None
    ) -> Float[np.ndarray, "E C+F"]:
        expected = (len(seeds), len(goal_channels(self.goal)))
        if goals is None:
            goals = np.zeros((len(seeds), 0), np.float32)
        if goals.shape != expected or not np.isfinite(goals).all():
            raise WorldError(
                f"policy for {self.spec.task!r}: goals: expected finite numbers of shape {expected} "
                f"({', '.join(self.goal) or 'it takes no goal'}), got shape {goals.shape}"
            )
        if not self._goal_features or self._eyes is None:
            return goals.astype(np.float32)
        refuse_pictures(self.spec, len(seeds), cameras, whose="goal's ")
        shown = self._eyes.see(cameras or {})
        return np.concatenate([goals.astype(np.float32), shown], axis=1)

    def _start(self, seeds: Int[np.ndarray, " E"], goals: Float[np.ndarray, "E C+F"]) -> None:
        episodes, chunk = len(seeds), self.planner.chunk
        self._seeds, self._goals = seeds, goals
        self._moved()
        self._steps = np.zeros(episodes, np.int64)  # actions returned so far
        width = len(self.spec.observation) + self.features
        self._history = np.zeros((episodes, self.planner.window, width), np.float32)
        kept = chunk if self.execute == "average" else 1
        self._chunks = np.zeros((episodes, kept, chunk, len(self.spec.action)), np.float32)  # newest first
        self._tags = np.full((episodes, kept, self.planner.tags + 1), -1, np.int64)  # last column: 0 where planned
        self._signals = [np.zeros(0, np.float32)] * episodes  # of the newest chunk

    def _moved(self) -> None:
        self._motion = goal_frame.onto(self._goals, np.array(self.reference)) if self.reference else None

    def _decide(
        self, observation: np.ndarray, rows: Int[np.ndarray, " B"], cameras: Pictures | None
    ) -> tuple[Float[np.ndarray, "B A"], Int[np.ndarray, " B"]]:
        """Return the planned action of this step, and its place in the newest chunk, after planning where due."""
        age = self._steps[rows] % self.planner.chunk if self.execute == "chunk" else np.zeros(len(rows), np.int64)
        self._observe(self._joined(observation, age, cameras), rows)
        fresh = rows[age == 0]
        if len(fresh):
            self._plan(fresh)
        target = self._average(rows) if self.execute == "average" else self._chunks[rows, 0, age]
        self._steps[rows] += 1
        return target, age

    def _joined(self, observation: np.ndarray, age: Int[np.ndarray, " B"], cameras: Pictures | None) -> np.ndarray:
        """Return observations with the features of the pictures that a plan will see, and zeros for the others."""
        channels = len(self.spec.observation)
        if cameras is None and (self._eyes is None or observation.shape[-1] == channels + self.features):
            return observation
        refuse_pictures(self.spec, len(observation), cameras)
        if cameras is None or self._eyes is None or observation.shape != (len(age), channels):
            return observation
        features = np.zeros((len(age), self.features), np.float32)
        used = -age % self.planner.chunk < self.planner.window  # steps to the next plan
        if used.any():
            features[used] = self._eyes.see({name: each[used] for name, each in cameras.items()})
        return np.concatenate([observation, features], axis=1)

    def _observe(self, observation: np.ndarray, rows: np.ndarray) -> None:
        expected = (len(rows), *(self._history.shape[1:] if observation.ndim == 3 else self._history.shape[2:]))
        if observation.shape != expected:
            raise WorldError(
                f"policy for {self.spec.task!r}: observation: expected shape {expected}, got {observation.shape}"
            )
        if not np.isfinite(observation).all():
            row, *_, channel = place = np.argwhere(~np.isfinite(observation))[0]
            known = len(self.spec.observation)
            name = self.spec.observation[channel].name if channel < known else f"feature {channel - known}"
            raise WorldError(
                f"policy for {self.spec.task!r}: observation {name!r} of episode {rows[row]} is "
                f"{observation[tuple(place)]}"
            )
        if observation.ndim == 3:
            self._history[rows] = observation
            return
        first = self._steps[rows] == 0
        self._history[rows, :-1] = np.where(first[:, None, None], observation[:, None], self._history[rows, 1:])
        self._history[rows, -1] = observation

    def _plan(self, rows: Int[np.ndarray, " B"]) -> None:
        """Insert a new chunk before the older ones of these episodes."""
        uniform = uniforms(self._seeds[rows], self._steps[rows], self.planner.draws)
        motion = None if self._motion is None else self._motion[rows]
        chunk, tags, signals = self._planned(self._history[rows], self._goals[rows], motion, uniform, rows)
        if self.execute == "average":
            self._chunks[rows, 1:] = self._chunks[rows, :-1]
            self._tags[rows, 1:] = self._tags[rows, :-1]
        self._chunks[rows, 0] = chunk
        self._tags[rows, 0, :-1] = tags
        self._tags[rows, 0, -1] = 0
        for row, certain in zip(rows, signals, strict=True):
            self._signals[row] = certain

    def _planned(
        self,
        observation: Float[np.ndarray, "B T D+F"],
        goals: Float[np.ndarray, "B C+F"],
        motion: goal_frame.Motion | None,
        uniform: Float[np.ndarray, "B draws"],
        rows: Int[np.ndarray, " B"],
    ) -> Planned:
        """Return plans made in the frame of `motion`. rows: the episodes' numbers, for messages."""
        if motion is not None:
            observation, goals = motion.there(observation), motion.there(goals)
        wanted = np.repeat(goals[:, None], self.planner.goal_steps, axis=1) if self.goal else None
        try:
            plan = self.planner.plan(observation, wanted, uniform)
        except Undecided as error:
            raise WorldError(
                f"policy for {self.spec.task!r}: its logits for episode {rows[error.row]} are not finite; what it was "
                "shown lies far from all that it was trained on, or its weights are damaged"
            ) from error
        return plan if motion is None else plan._replace(chunk=motion.back(plan.chunk))

    def _average(self, rows: Int[np.ndarray, " B"]) -> Float[np.ndarray, "B A"]:
        ages = np.arange(self._chunks.shape[1])
        overlapping = self._chunks[rows][:, ages, ages]  # (B, H, A): each chunk's action for the current step
        agree = (self._tags[rows] == self._tags[rows, :1]).all(2)[:, :, None].astype(np.float32)  # (B, H, 1)
        return (overlapping * agree).sum(1) / agree.sum(1)


def _newest(observation: Float[np.ndarray, "B *T D"]) -> Float[np.ndarray, "B D"]:
    return observation[:, -1] if observation.ndim == 3 else observation


def understood(terms: Mapping[str, Any]) -> dict[str, Any]:
    """Return an actor's keyword arguments from `Actor.terms`. Raises KeyError, TypeError or ValueError."""
    return {
        "goal": tuple(terms["goal"]),
        "reference": tuple(float(number) for number in terms.get("reference", ())),
        "absolute": tuple((str(name), float(reach)) for name, reach in terms.get("absolute", ())),
    }
