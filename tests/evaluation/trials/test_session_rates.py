"""Error rates and power of whole sessions; what `bench.trials` measures is what real sessions and the gate decide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.trials import INVALID, LOOKS, NO_VERDICT, Truth, measured, planned, played, rows, simulated
from tests.support import trials as support
from tests.support.point import played as recorded
from tests.support.trials import Bench
from vqbet import statistics
from vqbet.contract import GateError
from vqbet.evaluation import evidence, gate
from vqbet.evaluation.plan import Plan
from vqbet.evaluation.trials import judging
from vqbet.evaluation.trials.session_power import DRAWN, HELD, PROMOTED, REJECTED, decided, session_power
from vqbet.evaluation.trials.trial_progress import Trial

pytestmark = pytest.mark.slow

NAMES = {"PROMOTE": PROMOTED, "REJECT": REJECTED, "HOLD": HELD, "NOT_COMPARABLE": NO_VERDICT}
EVEN = Truth(0.7, 0.15, 0.15)


def by_the_gate(plan: Plan, mine: np.ndarray, theirs: np.ndarray) -> tuple[int, int]:
    """Return outcome and pairs of one session, look by look."""
    verdict = None
    for look in plan.looks:
        arms = {"candidate": mine[:look]} | ({"champion": theirs[:look]} if plan.champion else {})
        made = {name: recorded(plan, name, arm.astype(float)) for name, arm in arms.items()}
        verdict = gate.decide(plan, made)
        if verdict.outcome != "HOLD":
            break
    assert verdict is not None
    return NAMES[verdict.outcome], verdict.episodes


@pytest.mark.parametrize("champion", ["d" * 64, ""])
@pytest.mark.parametrize("question", ["better", "not_worse"])
@pytest.mark.parametrize("stopping", LOOKS)
def test_what_is_simulated_is_what_the_gate_decides(stopping: str, question: str, champion: str) -> None:
    plan = planned(question, stopping, champion=champion)
    truths = (EVEN, Truth(0.5, 0.4, 0.05), Truth(0.3, 0.05, 0.5), Truth(0.95, 0.02, 0.02))
    for number, truth in enumerate(truths):
        mine, theirs, _ = played(truth, (3, plan.most), seed=number)
        outcomes, pairs = decided(plan, mine, theirs)
        for place in range(len(mine)):
            assert (outcomes[place], pairs[place]) == by_the_gate(plan, mine[place], theirs[place])


@pytest.mark.parametrize("seed", range(4))
def test_what_is_simulated_is_what_real_sessions_end_with(tmp_path: Path, seed: int) -> None:
    """On their logs, with blinding, looks, invalid trials that are repeated, and evidence that replays."""
    plan = support.planned()
    truth = (EVEN, Truth(0.2, 0.7, 0.0), Truth(0.1, 0.1, 0.7), EVEN)[seed]
    invalid = np.random.default_rng(seed).uniform(size=(plan.trials, 3)) < (0.15 if seed < 3 else 0.7)
    mine, theirs, _ = played(truth, (1, plan.pairs), seed=seed)
    outcomes, pairs = decided(plan.plan, mine, theirs)

    def outcome(trial: Trial) -> str:
        if trial.repeat < 3 and invalid[trial.slot.number, trial.repeat]:
            return ""
        arm = mine if trial.slot.arm == "candidate" else theirs
        return "done" if arm[0, trial.slot.pair] else "nothing"

    bench = Bench(tmp_path / "session", plan=plan)
    bench.play(outcome)
    made = judging.stage(bench.folder, tmp_path / "staged")
    bad = sum(trial.state == "invalid" for trial in bench.session.progress.trials.values())
    expected = NO_VERDICT if bad > plan.most_invalid * (bad + 2 * pairs[0]) else outcomes[0]
    assert (NAMES[made.verdict.outcome], bench.session.progress.looked) == (expected, pairs[0])
    packed = evidence.pack(tmp_path / "store", judging.files(tmp_path / "staged"), {})
    assert evidence.replay(tmp_path / "store" / packed) == made.verdict


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.plan.stopping}, {row.plan.question}, {row.what}")
def test_every_row_of_the_table_holds(row: object) -> None:
    found, limit, holds = measured(row, sessions=2000, seed=1)  # type: ignore[arg-type]
    assert holds, f"promoted {found.promoted:.3f}, limit {limit:.3f}"


def test_the_planted_fault_looks_without_a_price_break_the_bound() -> None:
    """Three looks, each at the level of a single one."""
    truth, promoted = Truth(0.6, 0.05, 0.25), np.zeros(2000, bool)
    mine, theirs, _ = played(truth, (2000, 30), seed=0)
    for look in LOOKS["group_sequential"]:
        plan = planned("not_worse", "fixed", looks=(look,), alpha=0.05 / 0.75)
        outcomes, _ = decided(plan, mine[:, :look], theirs[:, :look])
        promoted |= outcomes == PROMOTED
    assert promoted.mean() > 0.06


def test_a_verdict_that_rests_on_many_invalid_trials_is_none() -> None:
    truth = replace(EVEN, invalid=(0.5, 0.5))
    found = simulated(planned("not_worse", "group_sequential"), truth, sessions=500, seed=0)
    assert (found.outcomes == NO_VERDICT).mean() > 0.99


def test_invalid_trials_leave_what_is_played_as_it_was() -> None:
    """Where they do not depend on the outcome, repeats have the distribution of the first trials."""
    truth = replace(Truth(0.5, 0.2, 0.1), invalid=INVALID["1 in 10"])
    mine, theirs, bad = played(truth, (20_000, 10), seed=0)
    shares = [(mine & theirs).mean(), (mine & ~theirs).mean(), (theirs & ~mine).mean()]
    assert shares == pytest.approx([0.5, 0.2, 0.1], abs=0.005)
    assert bad.mean() / 2 == pytest.approx(0.1 / 0.9, abs=0.005)


@pytest.mark.parametrize("stopping", LOOKS)
def test_the_stated_power_of_one_look_is_the_enumerated_one(stopping: str) -> None:
    plan = planned("not_worse", "fixed", floor=0.0)
    stated = statistics.pairs_power(30, gained=0.1, lost=0.1, limit=-0.2, alpha=plan.level)
    assert session_power(plan, both=0.7, gained=0.1, lost=0.1) == pytest.approx(stated, abs=1e-9)
    several = session_power(planned("not_worse", stopping), both=0.7, gained=0.1, lost=0.1)
    drawn = simulated(planned("not_worse", stopping), Truth(0.7, 0.1, 0.1), sessions=DRAWN, seed=7)
    assert several == pytest.approx(drawn.promoted, abs=0.015)


def test_the_power_against_a_floor_alone_is_that_of_its_successes() -> None:
    plan = planned("not_worse", "group_sequential", champion="")
    powers = [session_power(plan, both=share, gained=0.0, lost=0.0) for share in (0.5, 0.7, 0.9)]
    assert powers[0] <= plan.level
    assert powers == sorted(powers)
    assert powers[-1] > 0.9


def test_power_is_of_shares_and_successes() -> None:
    plan = planned("not_worse", "group_sequential")
    with pytest.raises(GateError, match="expected shares of pairs"):
        session_power(plan, both=0.9, gained=0.1, lost=0.1)
    with pytest.raises(GateError, match="expected a plan of successes"):
        session_power(replace(plan, metric="score"), both=0.8, gained=0.1, lost=0.1)
