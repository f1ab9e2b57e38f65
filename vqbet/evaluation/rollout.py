"""Rollouts of a policy in a world: all episodes at once, one policy call per step for the running ones.

The result has two parts: records, which do not depend on the machine's speed, and data for people (pictures, paths,
times).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vqbet.contract import GOAL_PICTURES, Env, EpisodeRecord, GoalSeeingPolicy, Pictures, Policy, SeenEnv, WorldError

MAX_FRAMES = 180  # per film: frames are skipped evenly to fit the longest episode
MAX_PATHS = 500  # episodes whose observations are kept; at 350 steps of 60 channels they take 42 MB
UNPLANNED = "0" * 64  # instead of a plan's sha256: these records count for no verdict


@dataclass(frozen=True, slots=True)
class Label:
    """Fields that all records of a rollout share; see `EpisodeRecord`."""

    world: str
    policy: str
    digest: str
    plan: str
    machine: str
    slice: str = ""


@dataclass(frozen=True, slots=True)
class Film:
    """Pictures of one episode, `fps` per second of simulated time; the last one shows the final state."""

    frames: list[UInt8[np.ndarray, "height width 3"]]
    fps: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Speed of a rollout on this machine."""

    act_s: Float[np.ndarray, " calls"]  # of each policy call, for all running episodes
    steps: int  # of all episodes
    seconds: float  # everything included

    def act_ms(self, percentile: float) -> float:
        return float(1000 * np.percentile(self.act_s, percentile))

    @property
    def steps_per_s(self) -> float:
        return self.steps / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class Play:
    """Result of a rollout. `paths[e]` are the T observations of episode e, for the first MAX_PATHS episodes."""

    records: list[EpisodeRecord]
    films: Mapping[int, Film]
    paths: list[Float[np.ndarray, "T D"]]  # float32
    timing: Timing


def play(
    env: Env,
    policy: Policy,
    seeds: Sequence[int] | Int[np.ndarray, " E"],
    label: Label,
    *,
    progress: Callable[[int, int], None] | None = None,
    film: Sequence[int] = (),
) -> Play:
    """Play one episode per seed to its end, and film the rows in `film` (positions in `seeds`).

    `progress` is called with control steps done and env.max_steps. Raises WorldError where the specs differ, or where
    world or policy return a wrong shape, a wrong type or a non-finite number; the message names seed and step.
    """
    numbers = _numbers(seeds, film)
    differences = env.spec.differences(policy.spec)
    if differences:
        names = f"the policy {label.policy!r} was not made for the world {label.world!r}"
        raise WorldError(f"{names}: {'; '.join(differences)}")
    if policy.goal and policy.goal != env.goal:
        raise WorldError(
            f"the policy {label.policy!r} must be told {', '.join(policy.goal)}, the world {label.world!r} asks for "
            f"{', '.join(env.goal) or 'nothing: evaluate it in the task that has goals'}"
        )
    run = _Episodes(env, policy, numbers, film)
    started = time.perf_counter()
    run.start()
    while len(run.rows):
        run.step()
        if progress is not None:
            progress(run.steps, env.max_steps)
    elapsed = time.perf_counter() - started
    if progress is not None:
        progress(env.max_steps, env.max_steps)
    timing = Timing(np.array(run.act_s), int(run.lengths.sum()), elapsed)
    metrics = _metrics(env, numbers)
    records = [
        EpisodeRecord(
            world=label.world,
            policy=label.policy,
            digest=label.digest,
            plan=label.plan,
            slice=label.slice,
            machine=label.machine,
            seed=int(seed),
            steps=int(run.lengths[row]),
            success=bool(metrics["success"][row]),
            score=float(metrics["score"][row]),
            mode=str(metrics["mode"][row]) if "mode" in metrics else "",
            metrics=_others(metrics, row),
        )
        for row, seed in enumerate(numbers)
    ]
    return Play(records, run.films, run.paths(), timing)


def join(parts: Sequence[Play], seconds: float) -> Play:
    """Join rollouts of one policy in this order; `seconds`: elapsed time of all, concurrent or not."""
    firsts = np.cumsum([0] + [len(part.records) for part in parts]).tolist()
    films = {first + row: film for first, part in zip(firsts, parts, strict=False) for row, film in part.films.items()}
    timing = Timing(
        np.concatenate([part.timing.act_s for part in parts]), sum(part.timing.steps for part in parts), seconds
    )
    paths = [path for part in parts for path in part.paths][:MAX_PATHS]
    return Play([record for part in parts for record in part.records], films, paths, timing)


@dataclass(slots=True)
class _Episodes:
    """State of a rollout: the running rows and the observations so far."""

    env: Env
    policy: Policy
    seeds: Int[np.ndarray, " E"]
    film: Sequence[int]
    steps: int = 0
    rows: Int[np.ndarray, " B"] = field(default_factory=lambda: np.zeros(0, np.int64))
    lengths: Int[np.ndarray, " E"] = field(default_factory=lambda: np.zeros(0, np.int64))
    observation: Float[np.ndarray, "B D"] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    films: dict[int, Film] = field(default_factory=dict)
    act_s: list[float] = field(default_factory=list)
    _kept: list[tuple[Int[np.ndarray, " B"], Float[np.ndarray, "B D"]]] = field(default_factory=list)  # per step

    def start(self) -> None:
        count = len(self.seeds)
        self.rows, self.lengths = np.arange(count), np.zeros(count, np.int64)
        self.films = {row: Film([], self.env.spec.control_hz / self._stride) for row in self.film}
        observation = self.env.reset(self.seeds.copy())
        goals = self.env.goals().copy() if self.policy.goal else None
        if GOAL_PICTURES in self.policy.goal:
            wanted = self._expected(cast(SeenEnv, self.env).goal_cameras(), "goal's ")
            cast(GoalSeeingPolicy, self.policy).reset(self.seeds.copy(), goals, wanted)
        else:
            self.policy.reset(self.seeds.copy(), goals)
        self._observe(observation)
        self._picture(self.rows, ended=np.zeros(count, bool))

    def step(self) -> None:
        """Take one policy call and one control step for the running rows."""
        seen = {"cameras": self._seen()} if self.env.spec.cameras else {}
        began = time.perf_counter()
        action = self.policy.act(self.observation, self.rows.copy(), **seen)
        self.act_s.append(time.perf_counter() - began)
        self._check("action", action, len(self.env.spec.action))
        observation, ended = self.env.step(action, self.rows.copy())
        self.steps += 1
        self.lengths[self.rows] = self.steps
        self._observe(observation)
        ended = self._ends(ended)
        self._picture(self.rows, ended)
        self.rows, self.observation = self.rows[~ended], self.observation[~ended]

    def paths(self) -> list[Float[np.ndarray, "T D"]]:
        """Return the observations of each kept episode, in order of time."""
        rows = np.concatenate([rows for rows, _ in self._kept])
        observations = np.concatenate([observation for _, observation in self._kept])
        by_row = observations[np.argsort(rows, kind="stable")]
        return np.split(by_row, np.bincount(rows).cumsum()[:-1])

    @property
    def _stride(self) -> int:
        return math.ceil((self.env.max_steps + 1) / (MAX_FRAMES - 1))

    def _observe(self, observation: Float[np.ndarray, "B D"]) -> None:
        self._check("observation", observation, len(self.env.spec.observation))
        self.observation = observation.astype(np.float32)
        kept = self.rows < MAX_PATHS
        self._kept.append((self.rows[kept], self.observation[kept]))

    def _seen(self) -> Pictures:
        """Return the world's pictures of the running rows. Raises WorldError where they are not those of its spec."""
        return self._expected(cast(SeenEnv, self.env).cameras(self.rows.copy()))

    def _expected(self, found: Pictures, of: str = "") -> Pictures:
        for camera in self.env.spec.cameras:
            picture, shape = found.get(camera.name), (len(self.rows), *camera.shape)
            if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape != shape:
                got = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
                where = f"step {self.steps}: {of}camera {camera.name!r}"
                raise WorldError(f"{where}: expected uint8 pictures of shape {shape}, got {got}")
        return found

    def _picture(self, rows: Int[np.ndarray, " B"], ended: Bool[np.ndarray, " B"]) -> None:
        for row, last in zip(rows.tolist(), ended.tolist(), strict=True):
            if row in self.films and (last or self.steps % self._stride == 0):
                self.films[row].frames.append(self.env.render(row).copy())

    def _ends(self, ended: Bool[np.ndarray, " B"]) -> Bool[np.ndarray, " B"]:
        if not isinstance(ended, np.ndarray) or ended.shape != self.rows.shape or ended.dtype != bool:
            raise WorldError(f"step {self.steps}: expected {len(self.rows)} bools for which episodes ended")
        if self.steps >= self.env.max_steps and not ended.all():
            seed = self.seeds[self.rows[~ended][0]]
            raise WorldError(f"seed {seed}: still running after the world's own limit of {self.env.max_steps} steps")
        return ended

    def _check(self, what: str, value: Float[np.ndarray, "B C"], channels: int) -> None:
        """Raise WorldError unless value is a finite float array of one row per running episode."""
        expected = (len(self.rows), channels)
        if not isinstance(value, np.ndarray) or value.shape != expected or value.dtype.kind != "f":
            got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise WorldError(f"step {self.steps}: {what}: expected a float array of shape {expected}, got {got}")
        bad = np.argwhere(~np.isfinite(value))
        if len(bad):
            row, channel = bad[0]
            spec = self.env.spec.action if what == "action" else self.env.spec.observation
            raise WorldError(
                f"seed {self.seeds[self.rows[row]]}, step {self.steps}: {what} {spec[channel].name!r} "
                f"is {value[row, channel]}, expected a finite number"
            )


def _numbers(seeds: Sequence[int] | Int[np.ndarray, " E"], film: Sequence[int]) -> Int[np.ndarray, " E"]:
    numbers = np.asarray(seeds)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iu" or (numbers < 0).any():
        raise WorldError(f"seeds: expected at least one whole number >= 0, got {numbers.dtype} {numbers.shape}")
    if len(np.unique(numbers)) != len(numbers):
        raise WorldError(f"seeds: {len(numbers) - len(np.unique(numbers))} of {len(numbers)} appear more than once")
    if any(not 0 <= row < len(numbers) for row in film):
        raise WorldError(f"film: expected rows in 0..{len(numbers) - 1}, got {list(film)}")
    return numbers.astype(np.int64)


def _metrics(env: Env, seeds: Int[np.ndarray, " E"]) -> dict[str, np.ndarray]:
    """Return the world's metrics. Raises WorldError on a missing metric, wrong length or type, or invalid score."""
    metrics = {name: np.asarray(values) for name, values in env.metrics().items()}
    missing = {"score", "success"} - set(metrics)
    if missing:
        raise WorldError(f"metrics: expected score and success, {sorted(missing)} missing")
    for name, values in metrics.items():
        if values.shape != seeds.shape:
            raise WorldError(f"metrics: {name}: expected {len(seeds)} values, got shape {values.shape}")
        kinds = {"success": "b", "mode": "U"}.get(name, "fiub")
        if values.dtype.kind not in kinds or (values.dtype.kind == "f" and np.isinf(values).any()):
            raise WorldError(f"metrics: {name}: expected an array of kind {kinds!r} without infinities, got {values!r}")
    outside = ~((metrics["score"] >= 0) & (metrics["score"] <= 1))  # true for NaN
    if outside.any():
        row = int(np.argmax(outside))
        raise WorldError(f"metrics: score: expected 0..1, got {metrics['score'][row]} at seed {seeds[row]}")
    return metrics


def _others(metrics: Mapping[str, np.ndarray], row: int) -> dict[str, float]:
    """Return the metrics without a field of their own, except NaN (the time of an event that did not occur)."""
    values = {name: float(metrics[name][row]) for name in sorted(metrics) if name not in ("score", "success", "mode")}
    return {name: value for name, value in values.items() if not math.isnan(value)}
