"""The session: what may be done when, that a crash or a second tap changes nothing, and what a log proves of itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trials import SALT, Bench, by_arm, planned, rewrite
from vqbet.contract import GateError
from vqbet.evaluation.trials import trial_log
from vqbet.evaluation.trials.trial_progress import Trial, progress
from vqbet.evaluation.trials.trial_session import TrialSession

Lines = list[dict[str, Any]]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "session")


def test_three_taps_are_a_trial(bench: Bench) -> None:
    session = bench.session
    assert session.phase == "ready"
    trial = session.arm("start", bench.prove)
    assert session.phase == "armed"
    session.start("began", trial.code)
    assert session.phase == "running"
    session.stop("stop", trial.code, by="operator", operator="Ada", report=bench.record(trial))
    assert session.phase == "stopped"
    session.grade("outcome", trial.code, operator="Ada", stage="touched", tag="missed", remark="by a hair")
    assert session.phase == "ready"
    assert session.done == 1
    done = session.progress.trials[trial.code]
    assert (done.state, done.stage, done.tag, done.remark) == ("graded", "touched", "missed", "by a hair")


def test_every_change_happens_once_however_often_its_key_comes(bench: Bench) -> None:
    """Also when the answer was lost and the session has moved on."""
    session = bench.session
    steps: list[Callable[[], object]] = []
    code = session.now.code  # type: ignore[union-attr]
    steps.append(lambda: session.arm("a", bench.prove))
    steps.append(lambda: session.start("b", code))
    steps.append(lambda: session.stop("c", code, by="robot", report=report))
    steps.append(lambda: session.grade("d", code, operator="Ada", stage="done"))
    steps.append(lambda: session.undo("e", code, operator="Ada"))
    steps.append(lambda: session.invalidate("f", code, operator="Ada", reason="robot fault"))
    steps.append(lambda: session.pause("g", operator="Ada"))
    steps.append(lambda: session.resume("h", operator="Ada"))
    report = bench.record(session.now)  # type: ignore[arg-type]
    for number, step in enumerate(steps, start=1):
        for earlier in steps[:number]:
            step()
            earlier()
        assert len(session.log.events) == 1 + number
    assert session.arm("a", bench.prove).code == code


def test_an_invalid_trial_is_repeated_at_the_end_of_its_block_under_a_new_code(bench: Bench) -> None:
    first = bench.run()
    bench.enter(first, "")
    codes = []
    for _ in range(4):
        trial = bench.run()
        codes.append(trial)
        bench.enter(trial, "nothing")
    assert [trial.slot.number for trial in codes] == [1, 2, 3, 0]
    assert codes[-1].repeat == 1
    assert codes[-1].code != first.code
    assert codes[-1].slot == first.slot
    assert bench.session.now.slot.block == 1  # type: ignore[union-attr]


def test_only_the_last_outcome_can_be_taken_back_and_only_before_the_next_trial(bench: Bench) -> None:
    one = bench.run()
    bench.enter(one, "nothing")
    assert bench.session.last == bench.session.progress.trials[one.code]
    bench.session.undo(bench.key(), one.code, operator="Ada")
    assert bench.session.phase == "stopped"
    bench.enter(one, "done")
    two = bench.session.arm(bench.key(), bench.prove)
    assert bench.session.last is None
    with pytest.raises(GateError, match="its outcome stands"):
        bench.session.undo(bench.key(), one.code, operator="Ada")
    bench.session.invalidate(bench.key(), two.code, operator="Ada", reason="wrong condition")
    bench.session.undo(bench.key(), two.code, operator="Ada")
    assert bench.session.phase == "armed"


def test_no_outcome_can_be_taken_back_after_a_look(bench: Bench) -> None:
    bench.play(by_arm({"candidate": "done", "champion": "done"}), most=8)
    last = bench.session.last
    assert last is not None
    assert bench.session.settle()
    with pytest.raises(GateError, match="its outcome stands"):
        bench.session.undo(bench.key(), last.code, operator="Ada")


def test_a_decided_session_is_over_and_says_so(bench: Bench) -> None:
    bench.play(by_arm({"candidate": "nothing", "champion": "done"}))
    assert bench.session.progress.closed == "decided"
    assert bench.session.pairs == bench.session.progress.looked < bench.plan.pairs
    with pytest.raises(GateError, match="the session is closed, so nobody can start a trial now"):
        bench.run()
    with pytest.raises(GateError, match="was closed before it"):
        bench.session.open("late", operator="Bob", user="bob")
    assert trial_log.read(bench.paths.log)[-1].kind == "closed"


def test_a_session_that_no_look_decides_ends_with_its_last_trial(bench: Bench) -> None:
    outcome = by_arm({"candidate": "nothing", "champion": "nothing"})
    bench.play(outcome)
    assert bench.session.done in (8, 16, 24)
    assert bench.session.progress.closed in ("decided", "complete")


def test_it_can_be_ended_early_between_two_trials(bench: Bench) -> None:
    trial = bench.run()
    with pytest.raises(GateError, match="the session is stopped, so nobody can end the session now"):
        bench.session.close("end", operator="Ada")
    bench.enter(trial, "done")
    bench.session.close("end", operator="Ada")
    bench.session.close("end", operator="Ada")
    assert bench.session.progress.closed == "ended by the operator"


def test_while_it_is_paused_nothing_begins(bench: Bench) -> None:
    bench.session.pause("p", operator="Ada")
    assert bench.session.phase == "paused"
    with pytest.raises(GateError, match="the session is paused"):
        bench.run()
    bench.session.resume("r", operator="Ada")
    bench.run()


def test_a_server_that_refuses_leaves_no_trace(bench: Bench) -> None:
    def refuses(trial: Trial) -> dict[str, Any]:
        raise GateError("serves another policy")

    with pytest.raises(GateError, match="serves another policy"):
        bench.session.arm("start", refuses)
    assert [event.kind for event in bench.session.log.events] == ["opened"]
    assert bench.session.arm("start", bench.prove).state == "armed"


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda s, c: s.grade("k", c, operator="Ada", stage="fine"), "stage: expected one of nothing, touched, done"),
        (lambda s, c: s.grade("k", c, operator="Ada", stage="done", tag="missed"), "tag: expected one of dropped"),
        (lambda s, c: s.grade("k", c, operator="Ada", stage="nothing", tag="bored"), "tag: expected one of dropped"),
        (lambda s, c: s.grade("k", c, operator="Ada", stage="done", remark="x" * 501), "remark: expected at most 500"),
        (lambda s, c: s.grade("k", "NOBODY", operator="Ada", stage="done"), "'NOBODY': was not started"),
        (lambda s, c: s.invalidate("k", c, operator="Ada", reason="bad luck"), "reason: expected one of robot fault"),
        (lambda s, c: s.start("k", c), "is stopped, so nobody can begin now"),
        (lambda s, c: s.stop("k", c, by="robot"), "is stopped, so nobody can stop now"),
        (lambda s, c: s.pause("k", operator="Ada"), "nobody can pause now"),
        (lambda s, c: s.resume("k", operator="Ada"), "nobody can resume now"),
        (lambda s, c: s.undo("k", c, operator="Ada"), "its outcome stands"),
        (lambda s, c: s.open("k", operator=" ", user="ada"), "operator: expected a name"),
        (lambda s, c: s.open("k", operator="A\nB", user="ada"), "operator: expected a name"),
    ],
)
def test_what_does_not_fit_is_a_sentence_and_writes_nothing(
    bench: Bench, do: Callable[[TrialSession, str], None], message: str
) -> None:
    code = bench.run().code
    before = bench.paths.log.read_bytes()
    with pytest.raises(GateError, match=message):
        do(bench.session, code)
    assert bench.paths.log.read_bytes() == before
    assert bench.session.phase == "stopped"


@pytest.mark.parametrize(
    "report",
    [
        {"steps": -1},
        {"steps": 2.0},
        {"duration_s": float("nan")},
        {"duration_s": float("inf")},
        {"holds": True},
        {"recording": {"number": 1}},
        {"recording": {"number": 1, "digest": "short"}},
    ],
)
def test_a_robot_s_report_of_another_form_is_refused(bench: Bench, report: dict[str, Any]) -> None:
    trial = bench.session.arm("a", bench.prove)
    bench.session.start("b", trial.code)
    with pytest.raises(GateError, match=f"{next(iter(report))}: expected counts, seconds, and number and sha256"):
        bench.session.stop("c", trial.code, by="robot", report=report)
    assert bench.session.phase == "running"


def test_a_trial_without_a_recording_or_a_step_can_only_be_invalid(bench: Bench) -> None:
    trial = bench.session.arm("a", bench.prove)
    bench.session.start("b", trial.code)
    bench.session.stop("c", trial.code, by="lost")
    with pytest.raises(GateError, match="the robot has not said how it ended"):
        bench.enter(trial, "done")
    bench.enter(trial, "")
    other = bench.session.arm("d", bench.prove)
    bench.session.start("e", other.code)
    bench.session.stop("f", other.code, by="robot", report={**bench.record(other), "steps": 0})
    with pytest.raises(GateError, match="has made no step"):
        bench.enter(other, "done")


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_killed_at_any_byte_a_session_ends_like_the_undisturbed_one(tmp_path_factory: Any, seed: int) -> None:
    """Its desk dies a few times, each time in the middle of a write; what had no answer is done again."""
    random = np.random.default_rng(seed)
    outcome = by_arm({"candidate": "done", "champion": "touched"})
    whole = Bench(tmp_path_factory.mktemp("whole"))
    whole.play(outcome)
    killed = Bench(tmp_path_factory.mktemp("killed"))
    for _ in range(4):
        killed.play(outcome, most=int(random.integers(1, 3)))
        content = killed.paths.log.read_bytes()
        last = content[:-1].rfind(b"\n") + 1
        killed.session.log.close()
        if killed.session.progress.closed != "decided":
            killed.paths.log.write_bytes(content[: int(random.integers(last, len(content) + 1))])
        killed.reopen()
        resume(killed, outcome)
    killed.play(outcome)
    assert results(killed) == results(whole)


def resume(bench: Bench, outcome: Callable[[Trial], str]) -> None:
    """Finish the trial that the crash has left."""
    if bench.session.phase == "stopped":
        now = bench.session.now
        assert now is not None
        bench.enter(now, outcome(now))


def results(bench: Bench) -> list[tuple[object, ...]]:
    found = bench.session.progress
    return [*((trial.code, trial.state, trial.stage) for trial in found.trials.values()), (found.closed, found.looked)]


def _swap_outcomes(lines: Lines) -> Lines:
    graded = [line for line in lines if line["kind"] == "graded"]
    graded[0]["trial"], graded[1]["trial"] = graded[1]["trial"], graded[0]["trial"]
    return lines


def _of(kind: str, lines: Lines) -> int:
    return next(place for place, line in enumerate(lines) if line["kind"] == kind)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_swap_outcomes, "is stopped|is unknown|is planned"),
        (lambda lines: lines[1:], "nobody has opened the session"),
        (lambda lines: [{**lines[0], "plan": "e" * 64}, *lines[1:]], "do not mix them"),
        (lambda lines: [{**lines[0], "robot": "arm 2"}, *lines[1:]], "do not mix them"),
        (lambda lines: [lines[0], {**lines[1], "slot": 3}, *lines[2:]], "was not the next one of this plan"),
        (lambda lines: [lines[0], *lines[5:]], "was not the next one of this plan"),
        (lambda lines: [line for line in lines if line["kind"] != "looked"], "waits for a look|a look was due"),
        (lambda lines: [*lines[:4], {**lines[4], "stage": "superb"}, *lines[5:]], "stage: expected one of"),
        (lambda lines: [*lines[:4], {**lines[4], "stage": "done", "tag": "missed"}, *lines[5:]], "tag: expected"),
        (lambda lines: [*lines[:3], {**lines[3], "recording": None}, *lines[4:]], "so there is no recording of it"),
        (lambda lines: [*lines, {**lines[-1], "key": "again"}], "the session was closed before it"),
        (
            lambda lines: [{**line, "pairs": 2} if line["kind"] == "looked" else line for line in lines],
            "no look is due after 2 complete pairs",
        ),
        (
            lambda lines: [
                *lines[: _of("looked", lines)],
                {
                    **{name: lines[4][name] for name in ("trial", "operator", "when", "prev", "seq")},
                    "kind": "undone",
                    "key": "late",
                    "event": 5,
                },
                *lines[_of("looked", lines) :],
            ],
            "its outcome stood already",
        ),
    ],
)
def test_a_log_whose_chain_was_computed_anew_must_still_follow_from_the_plan(
    bench: Bench, tmp_path: Path, change: Callable[[Lines], Lines], message: str
) -> None:
    bench.play(by_arm({"candidate": "touched", "champion": "done"}))
    shutil.copy(bench.paths.log, tmp_path / "changed.jsonl")
    rewrite(tmp_path / "changed.jsonl", change)
    events = trial_log.read(tmp_path / "changed.jsonl")
    with pytest.raises(GateError, match=message):
        progress(bench.plan, bench.blinding, events)


def test_a_session_of_one_arm_runs_against_the_floor(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "alone", plan=planned(judged={"champion": ""}))
    bench.play(lambda trial: "done")
    assert bench.session.progress.closed == "decided"
    assert bench.session.done == bench.session.pairs
    assert SALT.hex() not in bench.paths.log.read_text()
    assert "candidate" not in bench.paths.log.read_text()


def test_nothing_in_a_log_names_an_arm(bench: Bench) -> None:
    bench.play(by_arm({"candidate": "done", "champion": "touched"}), most=6)
    text = bench.paths.log.read_text()
    assert not any(word in text for word in ("candidate", "champion", *bench.plan.arms.values()))
