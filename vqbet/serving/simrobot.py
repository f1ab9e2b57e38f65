"""Simulated robot: one of our worlds behind the robot's side of the protocol, with faults by kind and seed.

Client, player, guard and recorder are those of a real robot; only sensors, joints and the person are simulated. Without
`realtime` the clock is simulated too: nothing sleeps, and the same seed gives the same run.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol, final

import numpy as np
from jaxtyping import Float, UInt8

from vqbet.contract import Env, ServingError, Spec
from vqbet.files import reading
from vqbet.serving.cameras import Shown
from vqbet.serving.client import Reply
from vqbet.serving.errands import Remote, Simulated, Threaded
from vqbet.serving.guard import Guard
from vqbet.serving.handshake import Handshake
from vqbet.serving.player import ChunkPlayer, Notebook
from vqbet.serving.simulated_cameras import SimulatedCameras, small

ROW = np.zeros(1, np.int64)
PERSON_S = 1.0  # a person drives for this long
RETRY_S = 0.5  # between two tries to start an episode
MOST_JITTER = 0.45  # of a period: two steps do not change places


@dataclass(frozen=True, slots=True)
class Faults:
    """Faults of a robot, all of them absent by default.

    jitter: most deviation of a control step from its time, in periods. latency: mean delay of an answer, in seconds;
    each takes half to one and a half of it. drop: share of the frames that do not arrive, so that the last one is seen
    again. noise: standard deviation of sensor noise, as a share of a channel's range. beyond: share of the steps at
    which a sensor reads far beyond its limits. stuck: share of the episodes in which a joint sticks. person: share of
    the episodes in which a person takes over for PERSON_S. black, frozen: share of the episodes in which the first
    camera shows nothing, or the same picture, from some step on.
    """

    jitter: float = 0.0
    latency: float = 0.0
    drop: float = 0.0
    noise: float = 0.0
    beyond: float = 0.0
    stuck: float = 0.0
    person: float = 0.0
    black: float = 0.0
    frozen: float = 0.0

    @classmethod
    def of(cls, written: Sequence[str]) -> Faults:
        """Return faults written as name=number. Raises ServingError for another name or a number out of bounds."""
        most = {field.name: 1.0 for field in fields(cls)} | {"jitter": MOST_JITTER, "latency": 60.0}
        found: dict[str, float] = {}
        for one in written:
            name, _, number = one.partition("=")
            if name not in most:
                raise ServingError(f"fault {reading.short(one)}: expected one of {', '.join(most)}, as in drop=0.1")
            try:
                found[name] = float(number)
            except ValueError:
                found[name] = math.nan
            if not 0 <= found[name] <= most[name]:
                raise ServingError(f"fault {name}: expected a number from 0 to {most[name]:g}, got {number!r}")
        return cls(**found)


@dataclass(frozen=True, slots=True)
class Drive:
    """Outcome of one episode. stopped: the sentence of the guard's stop; "" where it did not stop the robot.

    recording: its folder; None where nothing was recorded. overdue: the time of a trial was up.
    """

    seed: int
    steps: int
    success: bool
    score: float
    holds: int
    stopped: str
    reasons: Mapping[str, int]  # of the guard, by code
    driven: int  # steps at which the person drove
    warned: int  # steps at which a signal of the policy was beyond training
    recording: Path | None = None
    overdue: bool = False


class Ordered(Protocol):
    """The part of `station.StationTrial` that a simulated robot reads."""

    code: str
    timeout_s: float

    @property
    def running(self) -> bool: ...

    def began(self) -> None: ...

    def show(self, picture: UInt8[np.ndarray, "height width 3"]) -> None: ...


@final
class SimulatedRobot:
    """A robot in a world of `contract.Env`, driven by a remote policy: `play` an episode.

    guard: None: one with the server's limits. execute: a rule, None: the bundle's. wait_s: how long to wait for a
    server that is gone when an episode starts. camera: record pictures of the world beside those that
    the policy sees, and show them in trials.
    """

    def __init__(
        self,
        env: Env,
        policy: Remote,
        faults: Faults,
        *,
        realtime: bool = False,
        guard: Guard | None = None,
        recorder: Notebook | None = None,
        execute: str | None = None,
        wait_s: float = 0.0,
        camera: bool = False,
    ) -> None:
        self._env, self._faults, self._wait_s, self.camera = env, faults, wait_s, camera
        self._random = np.random.default_rng(0)
        self._clock = _Clock(1.0 / env.spec.control_hz, faults.jitter, realtime=realtime)
        self._recorder = recorder
        slow = _Slow(policy, self._latency_s) if realtime else policy
        errand = Threaded if realtime else lambda remote: Simulated(remote, self._clock, self._latency_s)
        self._player = ChunkPlayer(
            slow, guard=guard, recorder=recorder, execute=execute, clock=self._clock, errand=errand
        )

    def play(self, seed: int, trial: Ordered | None = None) -> Drive:
        """Play one episode; world, policy and faults depend on its seed. Raises ServingError where it cannot start.

        trial: that the episode belongs to; it ends when the trial does.
        """
        self._random = np.random.default_rng([seed, 1])
        env, player = self._env, self._player
        seen = env.reset(np.array([seed]))[0]
        sensor = _Sensor(env.spec, self._faults, self._random)
        joints = _Joints(env.spec, self._faults, self._random, env.max_steps)
        person = _Person(env, self._faults, self._random)
        cameras = SimulatedCameras(env, self._faults, self._random)
        self._start({"state": seen, **cameras.read(0)}, seed, "" if trial is None else trial.code)
        if trial is not None:
            self._begin(trial)
        self._clock.start(self._random)
        most = env.max_steps if trial is None else min(env.max_steps, int(trial.timeout_s * env.spec.control_hz))
        reasons: Counter[str] = Counter()
        steps = holds = driven = warned = 0
        ended, stopped = False, ""
        while not ended and steps < most and (trial is None or trial.running):
            observation, observed_s = sensor.read(seen, self._clock())
            wish = person.wish(steps, joints.sent)
            shown = {"state": observation, **self._scene(trial), **cameras.read(steps)}
            decision = player.step(shown, observed_s=observed_s, intervention=wish)
            steps, driven, warned = steps + 1, driven + (wish is not None), warned + bool(player.warnings)
            if decision.reason is not None:
                reasons[str(decision.reason)] += 1
            if decision.verdict == "stop":
                stopped = decision.detail or str(decision.reason)
                break
            holds += decision.verdict == "hold"
            moved = joints.move(decision.action, steps)
            if moved is not None:
                after, done = env.step(moved[None], ROW)
                seen, ended = after[0], bool(done[0])
            self._clock.tick()
        metrics = env.metrics()
        success = bool(metrics["success"][0]) and not stopped
        folder = player.finish(success=success, note=stopped[:200])
        score, overdue = float(metrics["score"][0]), not ended and steps == most < env.max_steps
        return Drive(seed, steps, success, score, holds, stopped, reasons, driven, warned, folder, overdue)

    def look(self) -> UInt8[np.ndarray, "height width 3"]:
        """Return a picture of the world as it is now."""
        return self._env.render(0)

    @property
    def control_hz(self) -> float:
        return self._env.spec.control_hz

    def close(self) -> None:
        self._player.close()

    def _scene(self, trial: Ordered | None) -> Shown:
        """Return the picture of the camera that looks on, which the operator sees in full."""
        if not self.camera:
            return {}
        picture = self.look()
        if trial is not None:
            trial.show(picture)
        return small(picture)

    def _start(self, seen: Mapping[str, np.ndarray], seed: int, trial: str) -> None:
        """Start the player's episode; where the server is gone, try again for at most `wait_s`.

        A trial is not tried again here: the desk hears that it could not begin, and orders it at a new server.
        """
        deadline = time.monotonic() + self._wait_s
        goal = self._env.goals()[0] if self._player.goal else None
        while True:
            try:
                self._player.start(seen, seed=seed, goal=goal, trial=trial)
                return
            except ServingError:
                if trial or time.monotonic() + RETRY_S > deadline:
                    raise
                time.sleep(RETRY_S)

    def _begin(self, trial: Ordered) -> None:
        try:
            trial.began()
        except ServingError:
            self._player.discard()
            raise

    def _latency_s(self) -> float:
        return self._faults.latency * float(self._random.uniform(0.5, 1.5)) if self._faults.latency else 0.0


@final
class _Clock:
    """The control loop's clock: the machine's own, or one that advances by a period at each tick."""

    def __init__(self, period_s: float, jitter: float, *, realtime: bool) -> None:
        self._period_s, self._jitter, self._realtime = period_s, jitter, realtime
        self._simulated_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() if self._realtime else self._simulated_s

    def start(self, random: np.random.Generator) -> None:
        self._random, self._began_s, self._ticks = random, self(), 0

    def tick(self) -> None:
        """Wait for the next control step."""
        self._ticks += 1
        late = self._jitter * float(self._random.uniform(-1, 1)) if self._jitter else 0.0
        due = self._began_s + (self._ticks + late) * self._period_s
        if not self._realtime:
            self._simulated_s = due
        elif (left := due - time.monotonic()) > 0:
            time.sleep(left)


@final
class _Slow:
    """A remote policy whose answers take longer, in the thread that asks."""

    def __init__(self, policy: Remote, latency_s: Callable[[], float]) -> None:
        self._policy, self._latency_s, self.timeout_s = policy, latency_s, policy.timeout_s

    @property
    def handshake(self) -> Handshake:
        return self._policy.handshake

    def start(self, seed: int, goal: np.ndarray | None = None, *, trial: str = "") -> None:
        self._policy.start(seed, goal, trial=trial)

    def plan(self, observed: Float[np.ndarray, "T D"], step: int, cameras: Sequence[Shown] = ()) -> Reply:
        time.sleep(self._latency_s())
        return self._policy.plan(observed, step, cameras)

    def close(self) -> None:
        self._policy.close()


@final
class _Sensor:
    """Sensors with noise, frames that do not arrive, and readings far beyond a channel's limits."""

    def __init__(self, spec: Spec, faults: Faults, random: np.random.Generator) -> None:
        self._faults, self._random = faults, random
        self._low = np.array([channel.low for channel in spec.observation])
        self._range = np.array([channel.high for channel in spec.observation]) - self._low
        self._last: tuple[np.ndarray, float] | None = None

    def read(self, true: Float[np.ndarray, " D"], now: float) -> tuple[Float[np.ndarray, " D"], float]:
        """Return an observation and when it was made."""
        faults, random = self._faults, self._random
        if self._last is not None and faults.drop and random.random() < faults.drop:
            return self._last
        seen = true.astype(np.float64)
        if faults.noise:
            seen = seen + faults.noise * self._range * random.normal(size=seen.shape)
        if faults.beyond and random.random() < faults.beyond:
            channel = random.integers(len(seen))
            seen[channel] = self._low[channel] + self._range[channel] * float(random.choice([-3.0, 4.0]))
        self._last = seen.astype(np.float32), now
        return self._last


@final
class _Joints:
    """Joints that execute what was sent last, one of which may stick from some step on. sent: the last action."""

    def __init__(self, spec: Spec, faults: Faults, random: np.random.Generator, steps: int) -> None:
        self._relative = spec.action_kind == "relative"
        self.sent: Float[np.ndarray, " A"] | None = None
        self._stuck, self._at = -1, 0.0
        if faults.stuck and random.random() < faults.stuck:
            self._stuck, self._from = (
                int(random.integers(len(spec.action))),
                int(random.integers(1, max(2, steps // 4))),
            )

    def move(self, action: Float[np.ndarray, " A"] | None, step: int) -> Float[np.ndarray, " A"] | None:
        """Return what the joints execute at this step; None: they have been sent nothing yet."""
        if action is not None:
            self.sent = np.array(action, np.float32)
        elif self._relative and self.sent is not None:
            self.sent = np.zeros_like(self.sent)
        if self.sent is None:
            return None
        moved = self.sent.copy()
        if self._stuck >= 0:
            if step < self._from:
                self._at = 0.0 if self._relative else float(moved[self._stuck])
            else:
                moved[self._stuck] = self._at
        return moved


@final
class _Person:
    """A person who takes over once in an episode, keeps the robot where it is for PERSON_S, and lets go."""

    def __init__(self, env: Env, faults: Faults, random: np.random.Generator) -> None:
        self._relative, self._channels = env.spec.action_kind == "relative", len(env.spec.action)
        self._from = self._to = -1
        if faults.person and random.random() < faults.person:
            self._from = int(random.integers(1, max(2, env.max_steps // 4)))
            self._to = self._from + max(1, round(PERSON_S * env.spec.control_hz))

    def wish(self, step: int, sent: Float[np.ndarray, " A"] | None) -> Float[np.ndarray, " A"] | None:
        """Return the person's action; None: the policy drives."""
        if not self._from <= step < self._to:
            return None
        return np.zeros(self._channels, np.float32) if self._relative else sent


def summary(drives: Sequence[Drive]) -> dict[str, str]:
    """Return a table of some episodes: success, holds and stops of the guard, and their reasons."""
    count, reasons = len(drives), Counter[str]()
    for drive in drives:
        reasons.update(drive.reasons)
    stopped = [drive for drive in drives if drive.stopped]
    steps = sum(drive.steps for drive in drives)
    rows = {
        "episodes": f"{count}, {steps} steps",
        "success": f"{sum(drive.success for drive in drives)} of {count}",
        "score": f"{sum(drive.score for drive in drives) / max(count, 1):.3f}",
        "holds": f"{sum(drive.holds for drive in drives)} of {steps} steps",
        "stops": f"{len(stopped)} of {count} episodes",
        "reasons": ", ".join(f"{name} {number}" for name, number in reasons.most_common()) or "none",
    }
    if driven := sum(drive.driven for drive in drives):
        rows["driven by a person"] = f"{driven} steps"
    if warned := sum(drive.warned for drive in drives):
        rows["unlike training"] = f"{warned} steps, by the policy's own signals"
    if stopped:
        rows["last stop"] = f"seed {stopped[-1].seed}: {reading.cut(stopped[-1].stopped, 200)}"
    return rows
