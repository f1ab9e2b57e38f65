"""The guard: what passes, what is refused and why, holding, stopping, and every branch of its code."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import branches, guarded
from tests.support.guarded import handshake, spec
from vqbet.serving import guard as module
from vqbet.serving.guard import Decision, Guard, Limits, Reason, SignalWatch

A, D = 2, 3
SEEN = np.zeros(D, np.float32)
LIMITS = {
    "rate": [0.5, 0.25],
    "acceleration": [0.25, 0.25],
    "start_low": [-0.25, -0.25],
    "start_high": [0.25, 0.25],
    "observation_low": [-0.5, -0.5, -1.25],
    "observation_high": [0.5, 0.5, 1.25],
}
TINY = 1e-6


def made(kind: str = "absolute", **settings: Any) -> Guard:
    return Guard(Limits.of(handshake(spec(A, D, kind=kind), LIMITS)), **settings)


def check(guard: Guard, action: Any, *, observation: Any = SEEN, age_s: float = 0.0, **stamp: float) -> Decision:
    return guard.check(action, observation, age_s=age_s, **stamp)


def one(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


FIRST, SECOND = one(0.25, -0.25), one(0.5, -0.25)
FAULTS: list[tuple[list[Any], dict[str, Any], Reason, str]] = [  # actions, arguments with the last, reason, sentence
    ([one(math.nan, 0)], {}, Reason.NOT_FINITE, "action 'a0' (m) is nan"),
    ([FIRST, one(0, -math.inf)], {}, Reason.NOT_FINITE, "action 'a1' (m) is -inf"),
    ([one(0, 0)], {"observation": np.array([0, math.inf, 9])}, Reason.NOT_FINITE, "observation 'o1' (m) is inf"),
    ([None], {"observation": np.array([math.nan, 0, 0])}, Reason.NOT_FINITE, "observation 'o0' (m) is nan"),
    ([one(0)], {}, Reason.NOT_FINITE, "action: expected 2 real numbers, got shape (1,) of float32"),
    ([[0.0, 0.0]], {}, Reason.NOT_FINITE, "action: expected 2 real numbers, got list"),
    ([FIRST.astype(complex)], {}, Reason.NOT_FINITE, "got shape (2,) of complex128"),
    ([FIRST], {"observation": SEEN[None]}, Reason.NOT_FINITE, "observation: expected 3 real numbers, got shape (1, 3)"),
    ([FIRST], {"observation": SEEN.astype(object)}, Reason.NOT_FINITE, "got shape (3,) of object"),
    ([FIRST], {"age_s": 0.126}, Reason.STALE_OBSERVATION, "the observation is 0.126 s old, expected 0 to 0.125 s"),
    ([FIRST], {"age_s": -TINY}, Reason.STALE_OBSERVATION, "is -1e-06 s old"),
    ([FIRST], {"age_s": math.nan}, Reason.STALE_OBSERVATION, "is nan s old"),
    ([FIRST], {"observed_s": math.nan}, Reason.STALE_OBSERVATION, "the stamp of the observation is nan s"),
    ([FIRST], {"observation": one(0, 0.5 + TINY, 0)}, Reason.OBSERVATION_LIMIT, "'o1' (m) is 0.500001, its limits are"),
    ([None], {"observation": one(0, 0, -1.25 - TINY)}, Reason.OBSERVATION_LIMIT, "'o2' is -1.25, its limits are"),
    ([FIRST], {"cameras": (Reason.UNFAMILIAR_PICTURE, "it is black")}, Reason.UNFAMILIAR_PICTURE, "it is black"),
    ([FIRST, SECOND], {"cameras": (Reason.FROZEN_CAMERA, "still")}, Reason.FROZEN_CAMERA, "still"),
    (
        [FIRST],
        {"cameras": (Reason.CAMERA_LIMIT, "dark"), "observation": one(0, 0, -1.25 - TINY)},
        Reason.OBSERVATION_LIMIT,
        "'o2' is -1.25, its limits are",
    ),
    ([None], {}, Reason.DEADLINE, "no action arrived in time"),
    ([FIRST, None], {}, Reason.DEADLINE, "no action arrived in time"),
    ([one(1 + TINY, 0)], {}, Reason.ACTION_LIMIT, "action 'a0' (m) is 1, its limits are -1 to 1"),
    ([FIRST, SECOND, one(0.5, -1 - TINY)], {}, Reason.ACTION_LIMIT, "action 'a1' (m) is -1, its limits are -1 to 1"),
    ([one(0, 0.25 + TINY)], {}, Reason.START_JUMP, "'a1' (m) is 0.250001 at the start, expected -0.25 to 0.25"),
    ([FIRST, one(-0.25 - TINY, 0)], {}, Reason.RATE, "'a0' (m) changes by 0.500001 in one control step, at most 0.5"),
    ([FIRST, one(0.25, TINY)], {}, Reason.RATE, "'a1' (m) changes by 0.250001 in one control step, at most 0.25"),
    ([FIRST, SECOND, one(0.5 - TINY, -0.25)], {}, Reason.ACCELERATION, "'a0' (m) changes its rate by 0.250001 per"),
    ([FIRST, SECOND, one(0.75, TINY - 0.5)], {"observed_s": -math.inf}, Reason.STALE_OBSERVATION, "is -inf s, that of"),
]
EDGES = [  # sequences that pass, each at a limit
    [one(0.25, -0.25), one(-0.25, 0.0)],
    [one(-0.25, 0.25), one(0.25, 0.5)],
    [FIRST, SECOND, one(1.0, -0.25)],
    [FIRST, SECOND, SECOND],
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault[2])
def test_each_fault_is_refused_with_its_reason(fault: tuple[list[Any], dict[str, Any], Reason, str]) -> None:
    actions, arguments, reason, sentence = fault
    guard = made()
    for action in actions[:-1]:
        assert check(guard, action).verdict == "pass"
    decision = check(guard, actions[-1], **arguments)
    assert (decision.verdict, decision.reason) == ("hold", reason)
    assert sentence in decision.detail
    assert guard.counters == {each.value: int(each is reason) for each in Reason}
    expected = actions[-2] if len(actions) > 1 else None
    assert np.array_equal(decision.action, expected) if expected is not None else decision.action is None


@pytest.mark.parametrize("actions", EDGES)
def test_the_limits_themselves_pass(actions: list[np.ndarray]) -> None:
    guard = made()
    edge = one(0.5, -0.5, 1.25)
    for step, action in enumerate(actions):
        decision = check(guard, action, observation=edge, age_s=0.125, observed_s=float(step))
        assert decision == Decision("pass", action), decision.detail
        assert decision.action is action, "nothing is repaired, and nothing copied"
    assert not any(guard.counters.values())


ORDER: list[tuple[Any, dict[str, Any], Reason]] = [  # the faults of every kind, mended one after the other
    (one(9, 9), {"observation": one(9, math.nan, 0), "age_s": 9.0}, Reason.NOT_FINITE),
    (one(9, 9), {"observation": one(9, 0, 0), "age_s": 9.0}, Reason.STALE_OBSERVATION),
    (one(9, 9), {"observation": one(9, 0, 0)}, Reason.OBSERVATION_LIMIT),
    (None, {"cameras": (Reason.FROZEN_CAMERA, "it stands still")}, Reason.FROZEN_CAMERA),
    (None, {}, Reason.DEADLINE),
    (one(9, 9), {}, Reason.ACTION_LIMIT),
    (one(-1, 1), {}, Reason.RATE),
    (one(0.5 - TINY, -0.25), {}, Reason.ACCELERATION),
    (one(0.5, -0.25), {}, Reason.WORKSPACE),
]


@pytest.mark.parametrize("fault", ORDER, ids=lambda fault: fault[2])
def test_the_first_check_that_fails_is_the_reason(fault: tuple[Any, dict[str, Any], Reason]) -> None:
    action, arguments, reason = fault
    answers = iter([True, True, False])
    guard = made(workspace=lambda *_: next(answers))
    for step in (FIRST, SECOND):
        check(guard, step)
    assert check(guard, action, **arguments).reason is reason


class TestHold:
    def test_absolute_actions_hold_where_they_are(self) -> None:
        guard = made()
        assert check(guard, None).action is None, "nothing was sent that could be held"
        check(guard, FIRST)
        held = check(guard, one(9, 9)).action
        assert np.array_equal(held, FIRST)
        assert held.dtype == np.float32
        held[:] = 7  # the robot's copy
        assert np.array_equal(check(guard, None).action, FIRST)

    def test_relative_actions_hold_by_zeros(self) -> None:
        guard = made("relative")
        assert check(guard, None).action.tolist() == [0, 0]
        check(guard, FIRST)
        assert check(guard, None).action.tolist() == [0, 0]
        decision = check(guard, one(0.5 + TINY, 0))
        assert decision.reason is Reason.RATE, "it is compared with the zeros that were sent"

    def test_an_action_is_held_in_its_own_precision(self) -> None:
        guard = made()
        fine = np.array([0.1, -0.1])
        check(guard, fine)
        assert check(guard, None).action.tolist() == fine.tolist()

    def test_nothing_of_the_caller_is_kept(self) -> None:
        guard, action = made(), FIRST.copy()
        check(guard, action)
        action[:] = 9
        assert np.array_equal(check(guard, None).action, FIRST)

    @pytest.mark.parametrize("kind", ["absolute", "relative"])
    def test_the_first_action_after_a_hold_has_no_acceleration(self, kind: str) -> None:
        guard = made(kind)
        for action in (FIRST, SECOND):
            check(guard, action)
        assert check(guard, None).verdict == "hold"
        resumed = one(0.0, -0.25) if kind == "absolute" else one(0.5, 0.25)
        assert check(guard, resumed).verdict == "pass"
        assert check(guard, resumed).reason is Reason.ACCELERATION, "the one after it has"

    def test_a_refusal_before_the_first_action_leaves_it_the_first(self) -> None:
        for kind in ("absolute", "relative"):
            guard = made(kind)
            check(guard, None)
            assert check(guard, one(0.25 + TINY, 0)).reason is Reason.START_JUMP


class TestStop:
    def test_the_third_refusal_in_a_row_stops_until_the_next_start(self) -> None:
        guard = made()
        check(guard, FIRST)
        assert [check(guard, None).verdict for _ in range(2)] == ["hold", "hold"]
        check(guard, FIRST)
        assert [check(guard, None).verdict for _ in range(3)] == ["hold", "hold", "stop"]
        assert guard.stopped
        decision = check(guard, FIRST)
        assert (decision.verdict, decision.reason) == ("stop", Reason.DEADLINE)
        assert np.array_equal(decision.action, FIRST)
        assert guard.counters["deadline"] == 5, "what comes after a stop is not judged"
        guard.start()
        assert not guard.stopped
        assert check(guard, one(0.5, 0)).reason is Reason.START_JUMP
        assert check(guard, FIRST).verdict == "pass"
        assert guard.counters["deadline"] == 5, "counters outlive an episode"

    def test_a_robot_that_was_sent_nothing_stops_without_an_action(self) -> None:
        guard = made()
        assert [check(guard, None).action for _ in range(4)] == [None] * 4
        assert guard.stopped

    def test_patience_of_one_stops_at_once(self) -> None:
        guard = Guard(Limits.of(handshake(spec(A, D), LIMITS), {"patience": 1}))
        assert check(guard, None).verdict == "stop"


class TestClock:
    def test_a_stamp_must_advance(self) -> None:
        guard = made()
        assert check(guard, FIRST, observed_s=1.0).verdict == "pass"
        decision = check(guard, FIRST, observed_s=1.0)
        assert decision.reason is Reason.STALE_OBSERVATION
        assert decision.detail == "the stamp of the observation is 1 s, that of the one before 1 s"
        assert check(guard, FIRST, observed_s=0.5).reason is Reason.STALE_OBSERVATION
        assert check(guard, FIRST, observed_s=1.01).verdict == "pass"
        guard.start()
        assert check(guard, FIRST, observed_s=0.0).verdict == "pass", "another episode, another clock"

    def test_without_stamps_only_the_age_counts(self) -> None:
        guard = made()
        assert [check(guard, FIRST).verdict for _ in range(3)] == ["pass"] * 3


class TestWorkspace:
    @pytest.mark.parametrize("answer", [False, None, 1, "yes", np.False_, np.ones(2)])
    def test_anything_but_true_refuses(self, answer: Any) -> None:
        decision = check(made(workspace=lambda *_: answer), FIRST)
        assert decision.reason is Reason.WORKSPACE
        assert decision.detail.startswith("the workspace hook returned ")

    @pytest.mark.parametrize("answer", [True, np.True_])
    def test_true_allows(self, answer: Any) -> None:
        assert check(made(workspace=lambda *_: answer), FIRST).verdict == "pass"

    def test_an_exception_refuses_with_its_sentence(self) -> None:
        def hook(action: np.ndarray, observation: np.ndarray) -> bool:
            raise ValueError(f"{action[0]:g} m is beneath the table")

        decision = check(made(workspace=hook), FIRST)
        assert decision.detail == "the workspace hook raised ValueError: 0.25 m is beneath the table"

    def test_a_hook_can_repair_nothing(self) -> None:
        def hook(action: np.ndarray, observation: np.ndarray) -> bool:
            action[:] = 0
            return True

        action = FIRST.copy()
        decision = check(made(workspace=hook), action)
        assert decision.reason is Reason.WORKSPACE
        assert "read-only" in decision.detail
        assert np.array_equal(action, FIRST)

    def test_a_person_who_interrupts_is_heard(self) -> None:
        def hook(action: np.ndarray, observation: np.ndarray) -> bool:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            check(made(workspace=hook), FIRST)

    def test_it_is_asked_last(self) -> None:
        asked: list[float] = []
        guard = made(workspace=lambda action, _: asked.append(float(action[0])) or True)
        for action in (FIRST, None, one(9, 9), SECOND):
            check(guard, action)
        assert asked == [0.25, 0.5]


UNKNOWN = [one(math.nan, 0), one(0), [0.0, 0.0]]


class TestSent:
    def test_an_action_of_a_person_is_the_one_before(self) -> None:
        guard = made()
        guard.sent(one(0.75, 0.75))
        assert check(guard, one(0.25 - TINY, 0.75)).reason is Reason.RATE
        assert np.array_equal(check(guard, None).action, one(0.75, 0.75))
        assert check(guard, one(0.25, 0.75)).verdict == "pass"

    @pytest.mark.parametrize("unknown", UNKNOWN)
    def test_after_an_unknown_action_the_next_is_a_first_one(self, unknown: Any) -> None:
        guard = made()
        check(guard, FIRST)
        guard.sent(unknown)
        assert check(guard, one(0.5, 0)).reason is Reason.START_JUMP


class TestWatch:
    def watch(self) -> SignalWatch:
        return SignalWatch.of(
            {
                "limit.rate": np.ones(2),
                "signal.entropy": np.array([1.0, 2.0]),
                "signal.surprise": np.array([0.5, 3.0]),
                "codes.surprise": np.array([[0.1, 5.0], [2.0, 0.2]]),
            }
        )

    def test_the_second_plan_may_surprise(self) -> None:
        watch = self.watch()
        assert watch.see({"entropy": 1.5}, [0, 7]) == {"entropy": 1.5}
        assert watch.see({"entropy": 1.5}, [1, 3]) == {"entropy": 1.5, "surprise": 5.0}
        assert watch.see({}, [1, 3]) == {"surprise": pytest.approx(0.2)}
        watch.start()
        assert watch.see({}, [1, 3]) == {}, "another episode"

    def test_it_warns_above_what_training_showed(self) -> None:
        watch = self.watch()
        assert watch.warnings({"entropy": 2.0, "surprise": 3.0, "offset": 99.0}) == []
        assert watch.warnings({"entropy": 2.1, "surprise": 0.0}) == ["entropy"]
        assert watch.warnings({"entropy": math.nan, "surprise": 3.1}) == ["entropy", "surprise"]

    def test_a_bundle_without_the_component_never_warns(self) -> None:
        watch = SignalWatch.of({})
        assert watch.see({"entropy": 9.0}, [1]) == watch.see({"entropy": 9.0}, [0]) == {"entropy": 9.0}
        assert watch.warnings({"entropy": 9.0}) == []


FAULTY = ("unsafe passed", "safe refused", "another reason", "another action")


def wrong(told: Counter[str]) -> list[str]:
    """Return what a campaign shows against the guard, or against the campaign itself."""
    faults = [f"{name}: {told[name]}" for name in FAULTY if told[name]]
    unseen = [f"{reason.value} never occurs" for reason in Reason if not told[reason.value]]
    return faults + unseen + (["too few pass"] if told["pass"] <= told.total() / 3 else [])


def test_generated_actions_are_judged_as_the_oracle_judges_them() -> None:
    """`python -m bench.guard` does so with a million."""
    assert wrong(guarded.campaign(5000, seed=1)) == []


@pytest.mark.parametrize(
    ("pattern", "mutant"),
    [
        (r"np\.less_equal", "np.less"),
        (r"np\.greater_equal", "np.greater"),
        (r"not 0 <= age_s <=", "not 0 <= age_s <"),
        (r"if stale or action", "if action"),
        (r"min\(self\._known \+ 1, 2\)", "2"),
        (r"self\._known = min\(self\._known, 1\)", "pass"),
        (r"self\._last\.fill\(0\)", "pass"),
        (r"self\._before\[:\] = self\._now", "self._last[:] = self._action"),
        (r">= self\.limits\.patience", "> self.limits.patience"),
        (r"self\._refused, self\._kind = min\(self\._known \+ 1, 2\), 0, kind", "_, self._kind = 2, 0, kind"),
        (r"answer is True or", "answer or"),
        (r"-limits\.rate, -limits", "0 * limits.rate, -limits"),
    ],
)
def test_the_oracle_finds_what_is_planted(pattern: str, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, count = re.subn(pattern, mutant, Path(str(module.__file__)).read_text(encoding="utf-8"))
    assert count
    planted: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(source, "planted.py", "exec", dont_inherit=True), planted)
    monkeypatch.setattr(guarded, "Guard", planted["Guard"])
    told = guarded.campaign(2500, seed=1)
    assert any(told[name] for name in FAULTY)


@pytest.mark.slow
def test_every_branch_of_the_guard_is_taken() -> None:
    def everything() -> None:
        assert wrong(guarded.campaign(1500, seed=2)) == []
        for fault in FAULTS:
            test_each_fault_is_refused_with_its_reason(fault)
        TestSent().test_an_action_of_a_person_is_the_one_before()
        for unknown in UNKNOWN:
            TestSent().test_after_an_unknown_action_the_next_is_a_first_one(unknown)
        TestWatch().test_the_second_plan_may_surprise()
        TestWatch().test_it_warns_above_what_training_showed()
        TestWatch().test_a_bundle_without_the_component_never_warns()
        TestWorkspace().test_a_person_who_interrupts_is_heard()
        TestHold().test_absolute_actions_hold_where_they_are()
        TestClock().test_without_stamps_only_the_age_counts()
        for answer in (np.True_, np.False_):
            check(made(workspace=lambda *_, answer=answer: answer), FIRST)

    assert branches.untaken(module, lambda: check(made(), FIRST)), "what is not taken is seen"
    assert branches.untaken(module, everything) == []
