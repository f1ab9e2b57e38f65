"""Chunks on a robot's clock: plans are made elsewhere and in time, and the control loop never waits for one.

A plan is aligned to the control step whose observation it was made from: at step k, row k - o of a chunk planned at
step o is executed, and rows that are past are skipped. A chunk older than its H rows, and a chunk of an earlier episode
or connection, is never executed. Where nothing is left to execute, the guard holds the robot, then stops it.

Rules, as `vqbet.policies.actor.Actor` defines them; equal to it, bit for bit, where plans take no time:

    first    the newest plan's action, planned again as often as answers arrive
    chunk    the whole chunk, then the next, which is asked for so early that it is there when the present one ends
    average  the mean over the last H plans with the codes of the newest one
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, final

import numpy as np
from jaxtyping import Float

from vqbet.contract import ServingError
from vqbet.coordinates.action_reference import ActionReference
from vqbet.files import reading
from vqbet.serving.camera_watch import CameraWatch
from vqbet.serving.client import Reply
from vqbet.serving.errands import Clock, Errand, Remote, Threaded
from vqbet.serving.guard import Decision, Guard, Limits, SignalWatch
from vqbet.serving.handshake import Handshake
from vqbet.serving.looks import Glance, Observation, looked, mapping
from vqbet.serving.recordings import LATENCY

RULES = ("first", "chunk", "average")
RECENT = 8  # plans whose times are kept; the longest of them decides how early the next one is asked for
MARGIN = 1.25  # of that time


class Notebook(Protocol):
    """The part of `recorder.Recorder` that a player calls. failed: why the episode is not recorded; "" while it is."""

    handshake: Handshake

    @property
    def failed(self) -> str: ...

    def start(self, *, seed: int, goal: np.ndarray | None = None) -> None: ...

    def step(
        self,
        *,
        observation: Observation,
        asked: np.ndarray | None,
        sent: np.ndarray | None,
        time_s: float,
        verdict: str,
        reason: str,
        intervened: bool,
        signals: Mapping[str, float],
    ) -> None: ...

    def finish(self, *, success: bool | None, note: str = "") -> Path: ...

    def discard(self) -> None: ...


@final
class ChunkPlayer:
    """A remote policy on a robot's clock: `start` an episode, `step` at the control rate, `finish`.

    guard: None: one with the limits that the server sent. recorder: writes every step; None: nothing is written.
    execute: a rule of RULES; None: the bundle's own. wait_s: time that `step` may spend on the answer to its own
    observation; 0: none, so that the action of a step comes from an observation of an earlier one. clock, errand: other
    clocks and other ways to ask, for simulations. warnings: signals of the newest plan beyond those of training.

    `step` counts control steps by the clock: after a pause of n periods, n - 1 steps have been missed and their rows
    are skipped. Raises ServingError for an unknown rule.
    """

    def __init__(
        self,
        policy: Remote,
        *,
        guard: Guard | None = None,
        recorder: Notebook | None = None,
        execute: str | None = None,
        wait_s: float = 0.0,
        clock: Clock = time.monotonic,
        errand: Callable[[Remote], Errand] | None = None,
    ) -> None:
        self._policy, self._recorder, self._rule, self._wait_s, self._clock = policy, recorder, execute, wait_s, clock
        self._own_guard, self._made_guard = guard, guard
        self._waits = wait_s > 0 or errand is not None
        self._errand_of = errand or (lambda remote: Threaded(remote, clock))
        self._errand: Errand | None = None
        self._ending: Errand | None = None
        self._times: deque[float] = deque(maxlen=RECENT)
        self.warnings: list[str] = []
        if execute is not None and execute not in RULES:
            raise ServingError(f"execute: expected one of {', '.join(RULES)}, got {execute!r}")
        self._fit(policy.handshake)

    @property
    def guard(self) -> Guard:
        assert self._made_guard is not None
        return self._made_guard

    @property
    def goal(self) -> tuple[str, ...]:
        return self._served.goal

    def start(
        self,
        observation: Observation | np.ndarray,
        *,
        seed: int,
        goal: Float[np.ndarray, " C"] | None = None,
        trial: str = "",
    ) -> None:
        """Start an episode from a robot at rest. Blocks until the first plan is there, for at most the policy's
        deadlines; so the first chunk is executed from its first row. trial: the code of a blind trial. Raises
        ServingError where no plan arrives.
        """
        self._leave()
        self._free()
        self._policy.start(seed, goal, trial=trial)
        if self._policy.handshake != self._served:
            self._fit(self._policy.handshake)  # another champion
        seen = looked(self._served.spec, mapping(observation))
        self._seen: deque[Glance] = deque([seen] * self._served.window, self._served.window)
        self._chunks: list[Reply] = []  # of this episode, newest first
        self._present: Reply | None = None  # of the rule "chunk"
        self._step, self._since, self._driven, self._hurried = -1, 0, False, False
        self._latency: dict[str, float] = {}  # of the answers since the last step
        self._cameras.start()
        self._cameras.see(seen)
        self._errand = self._errand_of(self._policy)
        self._ask(0)
        self._asked_at = self._seen_step = 0
        self._take(self._policy.timeout_s + 1.0)
        if not self._chunks:
            refused = self._cameras.refusal()
            trouble = self._errand.trouble or f"no plan arrived within {self._policy.timeout_s:g} s"
            trouble = refused[1] if refused else trouble
            self._leave()
            raise ServingError(f"the episode cannot start: {trouble}")
        self.guard.start()
        if self._recorder is not None:
            self._recorder.handshake = self._served
            self._recorder.start(seed=seed, goal=goal)
        self._began_s = self._clock()

    def step(
        self,
        observation: Observation | np.ndarray,
        *,
        observed_s: float | None = None,
        intervention: Float[np.ndarray, " A"] | None = None,
    ) -> Decision:
        """Return the action of this control step, as the guard decided; action None: send nothing.

        observed_s: when the observation was made, on this player's clock; None: now. intervention: the action of a
        person who drives the robot at this step. The person answers for it: the guard notes it and checks nothing. No
        plan made before the person began is executed afterwards.
        """
        if self._errand is None:
            raise ServingError("no episode runs; call start(observation, seed=...) first")
        now, seen = self._clock(), mapping(observation)
        look, age_s = looked(self._served.spec, seen), 0.0 if observed_s is None else now - observed_s
        state = look.state
        self._count(now, look, age_s)
        self._cameras.see(look)
        asked = self._planned(state, drives=intervention is not None)
        if intervention is None:
            decision = self._decided(asked, state, age_s, observed_s)
        else:
            decision = Decision("pass", self._persons(intervention))
        if self._recorder is not None:
            self._recorder.step(
                observation={**seen, "state": state},
                asked=asked,
                sent=decision.action,
                time_s=now - self._began_s,
                verdict=decision.verdict,
                reason=decision.reason or "",
                intervened=intervention is not None,
                signals={
                    **(self._chunks[0].signals if self._chunks else {}),
                    **self._cameras.shares,
                    **self._latency,
                },
            )
        self._latency = {}
        return decision

    def finish(self, *, success: bool | None = None, note: str = "") -> Path | None:
        """End the episode and its recording; return the recording's folder, None where nothing is recorded.

        Raises ServingError where it could not be recorded.
        """
        self._leave()
        return None if self._recorder is None else self._recorder.finish(success=success, note=note)

    def discard(self) -> None:
        """End the episode and remove its recording, as where the robot was not allowed to begin."""
        self._leave()
        if self._recorder is not None:
            self._recorder.discard()

    def close(self) -> None:
        """End the episode, unrecorded, and the connection."""
        self._leave()
        self._policy.close()

    def _fit(self, handshake: Handshake) -> None:
        """Prepare for the policy behind a handshake."""
        self._served, spec = handshake, handshake.spec
        self._execute = self._rule or handshake.execute
        if self._execute not in RULES:
            raise ServingError(f"execute: expected one of {', '.join(RULES)}, got {self._execute!r} from the server")
        self._period_s = 1.0 / spec.control_hz
        names = [channel.name for channel in spec.observation]
        try:
            self._led = ActionReference.of(handshake.absolute, names) if handshake.absolute else None
        except ValueError as error:
            raise ServingError(f"absolute: {error} of {spec.task!r}") from error
        self._low = np.array([channel.low for channel in spec.action], np.float32)
        self._high = np.array([channel.high for channel in spec.action], np.float32)
        if handshake.chunk == 1 and not self._waits:
            raise ServingError(
                f"{spec.task!r}: a chunk of one action is past when it arrives; give wait_s, less than the period of "
                f"{self._period_s:g} s"
            )
        self._watch = SignalWatch(handshake.signals)
        self._made_guard = self._own_guard or Guard(Limits.of(handshake))
        self._cameras = CameraWatch(self._made_guard.limits)

    def _ask(self, step: int) -> None:
        looks = list(self._seen)
        shown = [look.shown for look in looks] if looks[0].shown else []
        self._errand_now.ask(np.stack([look.state for look in looks]), step, shown)

    def _count(self, now: float, look: Glance, age_s: float) -> None:
        """Advance to the control step of `now`, and keep its observation and the step that the observation is of.

        A missed step, and one whose observation the guard refuses, repeats the observation before it: for one bad
        reading, the server would refuse the whole window. No plan is made from a repeated observation.
        """
        if self._step < 0:
            self._began_s = now
        due = round((now - self._began_s) / self._period_s)
        passed = max(1, due - self._step)
        self._step += passed
        self._hurried = self._step - due > self._served.chunk
        self._seen.extend([self._seen[-1]] * min(passed - 1, self._served.window))
        limits = self.guard.limits
        within = (look.state >= limits.observation_low) & (look.state <= limits.observation_high)  # False for NaN
        good = bool(within.all()) and 0 <= age_s <= limits.max_age_s
        self._seen.append(look if good else self._seen[-1])
        self._seen_step = max(0, self._step - round(age_s / self._period_s)) if good else self._seen_step
        if self._step == 0:
            self._seen.extend([self._seen[-1]] * self._served.window)

    def _planned(self, state: Float[np.ndarray, " D"], *, drives: bool) -> Float[np.ndarray, " A"] | None:
        """Return the policy's action for this step, clamped to the spec as on the server; None where it has none."""
        self._take()
        if drives:  # a plan made before is of a scene that the person changes
            self._since = self._since if self._driven else self._step
            self._chunks, self._present = [one for one in self._chunks if one.step >= self._since], None
        self._driven = drives
        self._turn()
        if self._is_time():
            self._asked_at = self._seen_step
            self._ask(self._seen_step)
            self._take(self._wait_s)
            self._turn()
        action = None if self._hurried else self._by_rule()
        if action is None:
            return None
        if self._led is not None:
            action = self._led.commands(state[None], action[None])[0]
        return np.clip(action, self._low, self._high)

    def _by_rule(self) -> Float[np.ndarray, " A"] | None:
        if self._execute == "chunk":
            return None if self._present is None else self._present.chunk[self._step - self._present.step]
        if not self._chunks or self._step - self._chunks[0].step > self._oldest:
            return None
        if self._execute == "first":
            return self._chunks[0].chunk[self._step - self._chunks[0].step]
        return _average(self._chunks, self._step, self._served.chunk)

    @property
    def _lead(self) -> int:
        """Number of control steps that a plan takes to arrive, by the longest of the recent ones."""
        taken_s = MARGIN * max(self._times, default=self._period_s)
        return min(math.ceil(max(0.0, taken_s - self._wait_s) / self._period_s), self._served.chunk - 1)

    @property
    def _oldest(self) -> int:
        """Age in steps that the newest plan reaches while all is well, since one question is asked at a time."""
        return min(max(1, 2 * self._lead - 1), self._served.chunk - 1)

    def _is_time(self) -> bool:
        """Return whether the next plan is to be asked for at this step."""
        errand = self._errand_now
        if errand.busy or errand.trouble or self._asked_at >= self._seen_step:
            return False
        if self._execute != "chunk" or self._present is None:
            return True
        waiting = self._chunks and self._chunks[0].step > self._present.step
        return not waiting and self._step + self._lead >= self._present.step + self._served.chunk

    def _take(self, wait_s: float = 0.0) -> None:
        """Keep the chunks that have arrived and are not past."""
        for answer in self._errand_now.answers(wait_s):
            self._latency = {LATENCY: max(1000 * answer.taken_s, self._latency.get(LATENCY, 0.0))}
            if answer.reply is not None:
                self._times.append(answer.taken_s)
                self.warnings = self._watch.warnings(answer.reply.signals)
                familiar = self._cameras.plan(answer.reply.signals)
                if familiar and answer.reply.step >= self._since:
                    self._chunks.insert(0, answer.reply)
        self._chunks = [one for one in self._chunks if max(self._step, 0) - one.step < self._served.chunk]

    def _turn(self) -> None:
        """Take the newest chunk where the present one has ended; only the rule "chunk" reads it."""
        if self._present is not None and self._step - self._present.step < self._served.chunk:
            return
        self._present = self._chunks[0] if self._chunks else None

    def _why(self) -> str:
        """Return what is known of why there is no action."""
        if self._hurried:
            rate = self._served.spec.control_hz
            return f"step is called more often than the {rate:g} times per second that the policy was made for"
        if self._errand_now.trouble:
            return self._errand_now.trouble
        return f"no answer for {self._step - self._asked_at} steps" if self._errand_now.busy else ""

    def _decided(
        self,
        asked: Float[np.ndarray, " A"] | None,
        state: Float[np.ndarray, " D"],
        age_s: float,
        observed_s: float | None,
    ) -> Decision:
        """Return the guard's decision. What is not recorded is not done: no action is passed on."""
        failed = "" if self._recorder is None else self._recorder.failed
        action, cameras = None if failed else asked, self._cameras.refusal()
        decision = self.guard.check(action, state, age_s=age_s, observed_s=observed_s, cameras=cameras)
        why = failed or (self._why() if asked is None else "")
        return replace(decision, detail="; ".join(filter(None, [decision.detail, why]))) if why else decision

    def _persons(self, action: Float[np.ndarray, " A"]) -> Float[np.ndarray, " A"]:
        """Return a person's action, of which the guard now knows. Raises ServingError unless it is A finite numbers."""
        given = np.asarray(action)
        if given.shape != self._low.shape or given.dtype.kind not in "fiu" or not np.isfinite(given).all():
            raise ServingError(
                f"intervention: expected {len(self._low)} finite numbers, got {reading.short(given.tolist())}"
            )
        given = given.astype(np.float32)
        self.guard.sent(given)
        return given

    @property
    def _errand_now(self) -> Errand:
        assert self._errand is not None
        return self._errand

    def _leave(self) -> None:
        """Ask nothing more in the present episode."""
        if self._errand is not None:
            self._errand.end()
            self._ending, self._errand = self._errand, None

    def _free(self) -> None:
        """Wait until the last question of the episode before is answered, or its deadline is past."""
        if self._ending is not None and not self._ending.ended(self._policy.timeout_s + 1.0):
            raise ServingError("a plan of the episode before is still on its way, past its deadline; make a new player")
        self._ending = None


def _average(chunks: list[Reply], step: int, length: int) -> Float[np.ndarray, " A"]:
    """Return the mean of the actions for `step`, over the chunks with the codes of the newest, as Actor computes it."""
    overlapping = np.zeros((1, length, chunks[0].chunk.shape[1]), np.float32)
    agree = np.zeros((1, length, 1), np.float32)
    for one in chunks:
        if one.codes == chunks[0].codes:
            overlapping[0, step - one.step], agree[0, step - one.step] = one.chunk[step - one.step], 1
    return (overlapping.sum(1) / agree.sum(1))[0]
