"""Chunks on a robot's clock: the same actions as the policy that was judged, in time, and never a stale one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support import untrained
from tests.support.fake_server import HANDSHAKE, SPEC, Fake
from tests.support.serving import running, served
from vqbet.contract import ServingError
from vqbet.policies.actor import Actor
from vqbet.serving.client import Reply, connect
from vqbet.serving.errands import Simulated, Threaded
from vqbet.serving.guard import Decision, Guard, Limits, Reason
from vqbet.serving.handshake import Handshake
from vqbet.serving.player import ChunkPlayer

PERIOD_S = 1 / SPEC.control_hz
STATE = np.zeros(2, np.float32)
H = HANDSHAKE.chunk


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Numbered:
    """A policy whose actions say for which episode and step they are, and when they were planned; see fake_server."""

    def __init__(self, handshake: Handshake = HANDSHAKE) -> None:
        self.handshake, self.timeout_s = handshake, 2.0
        self.asked: list[tuple[int, np.ndarray]] = []
        self.trouble = ""
        self.codes: Callable[[int], tuple[int, ...]] = lambda step: (1, 2)
        self._fake = Fake(handshake)
        self.seed = -1

    def start(self, seed: int, goal: np.ndarray | None = None, *, trial: str = "") -> None:
        self.seed, self.trouble = seed, ""

    def plan(self, observed: np.ndarray, step: int) -> Reply:
        self.asked.append((step, observed))
        if self.trouble:
            raise ServingError(self.trouble)
        chunk = self._fake.answer({"step": step}, self.seed)["actions"]
        return Reply(chunk, self.codes(step), {"entropy": 0.5}, step, 0.0)

    def close(self) -> None:
        self.trouble = "closed"


class Played:
    """A player on a simulated clock. latency: in periods."""

    def __init__(self, latency: float = 0.0, handshake: Handshake = HANDSHAKE, **options: Any) -> None:
        self.clock, self.policy, self.latency = Clock(), Numbered(handshake), latency
        self.player = ChunkPlayer(
            self.policy,
            clock=self.clock,
            errand=lambda remote: Simulated(remote, self.clock, lambda: self.latency * PERIOD_S),
            **options,
        )

    def start(self, seed: int = 3) -> None:
        self.player.start(STATE, seed=seed)

    def step(self, periods: float = 1.0, state: np.ndarray = STATE, **options: Any) -> Decision:
        decision = self.player.step(state, **options)
        self.clock.now_s += periods * PERIOD_S
        return decision

    def steps(self, count: int) -> list[Decision]:
        return [self.step() for _ in range(count)]


def rows(decisions: list[Decision]) -> list[tuple[int, int]]:
    """The step that each action was meant for, and the step it was planned at; (-1, -1) where none was passed."""
    return [
        tuple(round(1000 * float(number)) for number in one.action[1:]) if one.verdict == "pass" else (-1, -1)
        for one in decisions
    ]


class TestTiming:
    @pytest.mark.parametrize("latency", [0.0, 0.4, 0.9])
    def test_first_plays_the_newest_plan(self, latency: float) -> None:
        played = Played(latency)
        played.start()
        behind = 0 if latency == 0 else 1
        assert rows(played.steps(9)) == [(step, max(0, step - behind)) for step in range(9)]

    def test_chunks_are_asked_for_before_the_present_one_ends(self) -> None:
        played = Played(1.5, execute="chunk")
        played.start()
        decisions = rows(played.steps(12))
        assert [meant for meant, _ in decisions] == list(range(12)), "the robot never waits"
        assert [planned for _, planned in decisions] == [0, 0, 0, 0, 2, 2, 4, 4, 6, 6, 8, 8]

    def test_without_latency_a_chunk_is_asked_for_when_the_present_one_has_ended(self) -> None:
        played = Played(execute="chunk")
        played.start()
        assert [planned for _, planned in rows(played.steps(9))] == [0, 0, 0, 0, 4, 4, 4, 4, 8]
        assert [step for step, _ in played.policy.asked] == [0, 4, 8]

    def test_a_slower_answer_holds_once_and_is_then_expected(self) -> None:
        played = Played(0.5, execute="chunk")
        played.start()
        played.steps(2)
        played.latency = 1.5
        found = rows(played.steps(14))
        assert found.count((-1, -1)) == 1, "asked one step ahead, there two steps later, and played from its third row"
        assert found[:4] == [(2, 0), (3, 0), (-1, -1), (5, 3)]

    def test_an_answer_that_takes_longer_than_a_chunk_is_never_played(self) -> None:
        played = Played(0.5)
        played.start()
        played.latency = H + 0.5
        found = played.steps(H + 3)
        assert rows(found)[2:] == [(-1, -1)] * (H + 1)
        assert (found[-1].verdict, found[-1].reason) == ("stop", Reason.DEADLINE)

    def test_the_clock_skips_rows_of_missed_steps(self) -> None:
        played = Played(execute="chunk")
        played.start()
        played.step(periods=3.0)
        assert rows([played.step(state=STATE + 3)]) == [(3, 0)]
        played.step()
        step, window = played.policy.asked[-1]
        assert (step, window[:, 0].tolist()) == (4, [3.0, 0.0])

    def test_a_plan_belongs_to_the_step_of_its_observation(self) -> None:
        """A frame that comes a period late, and one that does not come: no plan is made from it as if it were new."""
        played = Played()
        played.start()
        played.step(observed_s=played.clock.now_s)
        late_s = played.clock.now_s - PERIOD_S * 0.9
        assert rows([played.step(observed_s=late_s)]) == [(1, 0)]
        assert played.step(observed_s=late_s).reason == Reason.STALE_OBSERVATION
        assert [step for step, _ in played.policy.asked] == [0]
        assert rows([played.step(observed_s=played.clock.now_s)]) == [(3, 3)]

    def test_jitter_of_the_loop_loses_no_step(self) -> None:
        random, played = np.random.default_rng(0), Played()
        played.start()
        start_s, found = played.clock.now_s, []
        for step in range(50):
            played.clock.now_s = start_s + (step + random.uniform(-0.4, 0.4) * (step > 0)) * PERIOD_S
            found.append(played.player.step(STATE))
        assert [meant for meant, _ in rows(found)] == list(range(50))

    def test_a_loop_that_is_too_fast_is_refused(self) -> None:
        played = Played()
        played.start()
        found = [played.step(periods=0.5) for _ in range(20)]
        assert found[-1].verdict == "stop"
        first = next(one for one in found if one.verdict == "hold")
        assert "more often than the 50 times per second" in first.detail

    def test_a_step_never_waits(self) -> None:
        """A server that answers nothing: the thread waits, the loop does not."""
        policy, release = Numbered(), threading.Event()
        player = ChunkPlayer(policy)
        player.start(STATE, seed=0)
        answer = policy.plan
        policy.plan = lambda observed, step: (release.wait(60), answer(observed, step))[1]  # type: ignore[method-assign]
        found = [player.step(STATE) for _ in range(8)]
        assert found[0].verdict == "pass"
        assert not release.is_set()
        release.set()
        player.close()

    def test_waiting_a_little_is_possible(self) -> None:
        """With wait_s, the action of a step comes from its own observation, as the policy was judged."""
        played = Played(0.5, wait_s=0.6 * PERIOD_S)
        played.start()
        assert rows(played.steps(5)) == [(step, step) for step in range(5)]

    def test_a_chunk_of_one_action_needs_it(self) -> None:
        with pytest.raises(ServingError, match="a chunk of one action is past when it arrives; give wait_s"):
            ChunkPlayer(Numbered(replace(HANDSHAKE, chunk=1)))


class TestStale:
    def test_nothing_arrives_then_the_robot_holds_and_stops(self) -> None:
        played = Played(0.5)
        played.start()
        played.steps(4)
        played.latency = 1e9
        found = played.steps(5)
        assert [one.verdict for one in found] == ["pass", "hold", "hold", "stop", "stop"], "one answer was on its way"
        assert rows(found)[0] == (4, 3)
        assert found[1].action.tolist() == found[0].action.tolist(), "absolute: the robot stays where it is"
        assert "no answer for 1 steps" in found[1].detail

    def test_trouble_ends_the_episode_with_its_sentence(self) -> None:
        played = Played()
        played.start()
        played.steps(2)
        played.policy.trouble = "plan: the server refused: too hot"
        found = played.steps(5)
        assert found[-1].verdict == "stop"
        assert "too hot" in next(one for one in found if one.verdict == "hold").detail
        asked = len(played.policy.asked)
        played.steps(3)
        assert len(played.policy.asked) == asked, "a connection that broke is asked nothing more"
        played.start(4)
        assert played.step().verdict == "pass"

    def test_an_answer_to_an_earlier_episode_reaches_nobody(self) -> None:
        """Planted: the question of episode 1 is answered while episode 2 runs."""
        policy, release = Numbered(), threading.Event()
        first, second = Threaded(policy), Threaded(policy)
        answer = policy.plan
        policy.plan = lambda observed, step: (release.wait(60), answer(observed, step))[1]  # type: ignore[method-assign]
        first.ask(STATE[None], 7)
        first.end()
        release.set()
        assert first.ended(60.0)
        assert second.answers() == []
        second.end()

    def test_the_next_episode_waits_for_the_last_question_of_the_one_before(self) -> None:
        policy = Numbered()
        player = ChunkPlayer(policy, execute="first")
        for seed in range(20):
            player.start(STATE, seed=seed)
            found = [player.step(STATE) for _ in range(3)]
            assert all(one.action[0] == np.float32(seed / 1000) for one in found if one.verdict == "pass")
            player.finish()
        player.close()

    def test_an_episode_that_cannot_start_says_why(self) -> None:
        played = Played()
        played.policy.start = lambda seed, goal=None, trial="": setattr(played.policy, "trouble", "no power")  # type: ignore[method-assign]
        with pytest.raises(ServingError, match="the episode cannot start: no power"):
            played.start()
        with pytest.raises(ServingError, match=r"call start\(observation, seed=...\) first"):
            played.step()

    def test_a_bad_reading_is_held_and_shown_to_no_policy(self) -> None:
        played = Played()
        played.start()
        played.steps(3)
        for bad in (np.nan, 1e6):
            assert played.step(state=np.array([bad, 0.0])).verdict == "hold" or bad == 1e6
            assert played.step().verdict == "pass"
        assert all(np.abs(window).max() <= 10 for _, window in played.policy.asked)


class TestPerson:
    def test_a_persons_action_is_sent_and_old_plans_are_dropped(self) -> None:
        played = Played(0.5, execute="chunk")
        played.start()
        played.steps(2)
        taken = [played.step(intervention=np.full(3, 0.5)) for _ in range(2)]
        assert all(one.verdict == "pass" and one.action.tolist() == [0.5] * 3 for one in taken)
        found = rows(played.steps(3))
        assert all(planned >= 2 for meant, planned in found if meant >= 0), "planned since the person began"
        assert (-1, -1) not in found

    def test_a_person_may_drive_after_a_stop(self) -> None:
        played = Played()
        played.start()
        played.policy.trouble = "gone"
        assert played.steps(5)[-1].verdict == "stop"
        assert played.step(intervention=np.zeros(3)).verdict == "pass"
        assert played.step().verdict == "stop"

    @pytest.mark.parametrize("wrong", [np.zeros(2), np.full(3, np.nan), np.array(["a"] * 3)])
    def test_what_is_no_action_of_a_person(self, wrong: Any) -> None:
        played = Played()
        played.start()
        with pytest.raises(ServingError, match="intervention: expected 3 finite numbers, got"):
            played.step(intervention=wrong)


class Local:
    """A policy of this process behind the interface of a remote one."""

    def __init__(self, actor: Actor, absolute: Any = ()) -> None:
        self.actor, self.timeout_s, self.seed = actor, 2.0, 0
        planner = actor.planner
        self.handshake = Handshake(
            digest="ab" * 32, reference="", spec=actor.spec, window=planner.window, chunk=planner.chunk,
            execute=actor.execute, absolute=absolute,
        )  # fmt: skip

    def start(self, seed: int, goal: np.ndarray | None = None, *, trial: str = "") -> None:
        self.seed = seed

    def plan(self, observed: np.ndarray, step: int) -> Reply:
        none = np.zeros((1, 0), np.float32)
        plan = self.actor.plan(observed[None], none, np.array([self.seed]), np.array([step]))
        return Reply(plan.chunk[0], tuple(plan.tags[0].tolist()), {}, step, 0.0)

    def close(self) -> None:
        return


class TestRules:
    @pytest.mark.parametrize("execute", ["first", "chunk", "average"])
    def test_without_latency_the_actions_are_those_of_the_actor(self, execute: str) -> None:
        """Bit for bit: what runs on the robot is what the gate judged."""
        actor, clock = untrained.build(execute), Clock()
        remote = Local(actor)
        limits = Limits.of(remote.handshake)
        player = ChunkPlayer(remote, clock=clock, errand=lambda policy: Simulated(policy, clock))
        random = np.random.default_rng(0)
        low, high = limits.observation_low, limits.observation_high
        for seed in range(3):
            seen = np.clip(random.normal(size=(15, len(actor.spec.observation))).cumsum(0), low, high) / 2
            seen = seen.astype(np.float32)
            actor.reset(np.array([seed]))
            expected = [actor.act(one[None], np.zeros(1, np.int64))[0] for one in seen]
            player.start(seen[0], seed=seed)
            for one, action in zip(seen, expected, strict=True):
                decision = player.step(one)
                clock.now_s += 1 / actor.spec.control_hz
                assert decision.action is None or decision.verdict == "pass", decision
                assert np.array_equal(decision.action, action)

    @pytest.mark.parametrize("execute", ["first", "chunk", "average"])
    def test_nor_does_the_wire_change_a_bit(self, execute: str) -> None:
        """Our server, a websocket, the thread; wait_s, so that each step has the answer to its own observation."""
        actor, clock = untrained.build(execute), Clock()
        seen = np.random.default_rng(1).uniform(-0.5, 0.5, (12, len(actor.spec.observation))).astype(np.float32)
        with running(served(untrained.build(execute))) as server, connect(server.url, spec=actor.spec) as policy:
            player = ChunkPlayer(policy, wait_s=30.0, clock=clock, errand=lambda remote: Threaded(remote, clock))
            for seed in (4, 5):
                actor.reset(np.array([seed]))
                player.start(seen[0], seed=seed)
                for one in seen:
                    action = actor.act(one[None], np.zeros(1, np.int64))[0]
                    assert np.array_equal(player.step(one).action, action)
                    clock.now_s += 1 / actor.spec.control_hz
                player.finish()
            player.close()

    def test_averages_leave_other_behaviours_out(self) -> None:
        played = Played(execute="average")
        played.policy.codes = lambda step: (step % 2, 0)
        played.start()
        played.steps(3)
        planned = played.step().action[2] * 1000
        assert planned == pytest.approx((3 + 1) / 2), "of the plans of steps 0 to 3, those with the codes of 3"

    def test_positions_become_commands(self) -> None:
        """handshake.absolute: each command leads from the present observation to the planned position."""
        counted = (("x", 0.5), ("y", 0.5), ("x", 2.0))
        spec = replace(SPEC, action=tuple(replace(one, low=-0.02) for one in SPEC.action), action_kind="relative")
        played = Played(handshake=replace(HANDSHAKE, absolute=counted, spec=spec))
        played.start(seed=3)
        action = played.step(state=np.array([0.001, 0.0], np.float32)).action
        assert action == pytest.approx([0.004, 0.0, -0.0005], abs=1e-7)

    def test_an_unknown_rule(self) -> None:
        with pytest.raises(ServingError, match="execute: expected one of first, chunk, average, got 'last'"):
            ChunkPlayer(Numbered(), execute="last")
        with pytest.raises(ServingError, match="got 'last' from the server"):
            ChunkPlayer(Numbered(replace(HANDSHAKE, execute="last")))


class Notes:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.handshake, self.failed, self.told = HANDSHAKE, "", []

    def start(self, **fields: Any) -> None:
        self.told.append(("start", fields))

    def step(self, **fields: Any) -> None:
        self.told.append(("step", fields))

    def finish(self, **fields: Any) -> None:
        self.told.append(("finish", fields))


class TestRecords:
    def test_every_step_is_recorded(self) -> None:
        notes = Notes()
        played = Played(recorder=notes)
        played.start(5)
        picture = np.zeros((4, 4, 3), np.uint8)
        played.player.step({"state": STATE.astype(np.float64), "camera/top": picture})
        played.clock.now_s += PERIOD_S
        played.step(intervention=np.full(3, 0.5))
        played.policy.trouble = "gone"
        played.steps(2)
        played.player.finish(success=False, note="fell")
        kinds = [kind for kind, _ in notes.told]
        assert kinds == ["start", "step", "step", "step", "step", "finish"]
        first, person, _, held = (fields for kind, fields in notes.told if kind == "step")
        assert (notes.told[0][1]["seed"], notes.told[-1][1]) == (5, {"success": False, "note": "fell"})
        assert set(first["observation"]) == {"state", "camera/top"}
        assert first["observation"]["state"].dtype == np.float32
        assert np.array_equal(first["asked"], first["sent"])
        assert (first["verdict"], first["reason"], first["intervened"]) == ("pass", "", False)
        assert first["signals"] == {"entropy": 0.5, "latency_ms": 0.0}
        assert (person["intervened"], person["sent"].tolist()) == (True, [0.5] * 3)
        assert person["asked"] is not None, "what the policy would have done"
        assert (held["verdict"], held["reason"], held["asked"]) == ("hold", "deadline", None)
        assert [round(fields["time_s"] / PERIOD_S) for kind, fields in notes.told if kind == "step"] == [0, 1, 2, 3]

    def test_the_time_of_an_answer_is_recorded_where_it_came(self) -> None:
        notes = Notes()
        played = Played(1.5, recorder=notes, execute="chunk")
        played.start()
        played.steps(7)
        found = [fields["signals"].get("latency_ms") for kind, fields in notes.told if kind == "step"]
        expected = pytest.approx(1500 * PERIOD_S)
        assert found == [expected, None, None, None, expected, None, expected]

    def test_a_recording_that_fails_stops_the_robot(self) -> None:
        notes = Notes()
        played = Played(recorder=notes)
        played.start()
        played.steps(2)
        notes.failed = "the disk is full; free space"
        found = played.steps(3)
        assert [one.verdict for one in found] == ["hold", "hold", "stop"]
        assert "the disk is full" in found[0].detail

    def test_signals_beyond_training_warn(self) -> None:
        played = Played(handshake=replace(HANDSHAKE, signals={"entropy": [0.1, 0.2, 0.3, 0.4]}))
        played.start()
        assert played.step().verdict == "pass"
        assert played.player.warnings == ["entropy"]


def test_over_a_socket_in_real_time() -> None:
    """A thread, a websocket and the machine's own clock; what passes is of this episode and aligned."""
    with Fake().serving() as url, connect(url) as policy:
        player = ChunkPlayer(policy, guard=Guard(Limits.of(policy.handshake)), wait_s=5.0)
        for seed in (1, 2):
            player.start(STATE, seed=seed)
            found = [player.step(STATE) for _ in range(4)]
            assert all(one.action[0] == np.float32(seed / 1000) for one in found if one.verdict == "pass")
            assert rows(found)[0] == (0, 0)
            player.finish()
        player.close()
