"""How often a gate promotes what it should not, and finds what it should, stopping rules included; by simulation.

`outcomes` decides thousands of comparisons at once by the rules of gate.py; that it is the same is a test of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from vqbet import statistics
from vqbet.contract import EpisodeRecord
from vqbet.evaluation import gate
from vqbet.evaluation.interim import MOST_DRAWS, Look
from vqbet.evaluation.plan import MOST_ATTEMPTS, Plan, Slice
from vqbet.statistics.pairs import tango_zs

pytestmark = pytest.mark.slow

RUNS = 4000
ALPHA = 0.05
MONTE_CARLO = 0.0104  # three standard errors of a share of 5 % among RUNS
RULES = {"fixed": (600,), "group_sequential": (150, 300, 450, 600), "anytime": (150, 300, 450, 600)}

Arm = Callable[..., list[EpisodeRecord]]


def of(plan: Plan, stopping: str, question: str) -> Plan:
    """On successes, without baselines, slices and floor: what is left is the comparison with the champion."""
    found = replace(plan, stopping=stopping, looks=RULES[stopping], question=question, metric="success", alpha=ALPHA)
    return replace(found, baselines=(), floor=0.0, min_modes=0, slices=(Slice("all", 1.0),), margin=0.06)


def pairs(gained: float, lost: float, runs: int = RUNS, seed: int = 0) -> np.ndarray:
    """Differences of successes, (runs, 600)."""
    return np.random.default_rng(seed).choice([1, 0, -1], (runs, 600), p=[gained, 1 - gained - lost, lost])


def outcomes(plan: Plan, differences: np.ndarray) -> np.ndarray:
    """1 promoted, -1 rejected, 0 neither, for each run."""
    found = np.zeros(len(differences), np.int64)
    limit, hopeless = (0.0, plan.margin) if plan.question == "better" else (-plan.margin, -plan.margin)
    up, down = _beyond(plan, differences, limit), _beyond(plan, -differences, -hopeless)
    for look, above, below in zip(plan.looks, up, down, strict=True):
        if plan.stopping != "anytime" and plan.question == "better":
            seen = differences[:, :look]
            gained, lost = (seen > 0).sum(axis=1), (seen < 0).sum(axis=1)
            above &= stats.binom.sf(gained - 1, gained + lost, 0.5) <= Look(plan, look).chance
        found = np.where(found != 0, found, np.where(below, -1, np.where(above, 1, 0)))
    return found


def _beyond(plan: Plan, differences: np.ndarray, limit: float) -> list[np.ndarray]:
    """Whether each run is beyond the limit, look for look. A bettor's wealth depends on no later episode."""
    if plan.stopping == "anytime":
        wealth = statistics.log_wealth((differences + 1) / 2, (limit + 1) / 2, alpha=plan.level, most=plan.most)
        return [wealth[:, :look].max(axis=1) >= np.log(1 / plan.level) for look in plan.looks]
    counts = [((differences[:, :look] > 0).sum(axis=1), (differences[:, :look] < 0).sum(axis=1)) for look in plan.looks]
    return [
        tango_zs(look, *numbers, limit) > NormalDist().inv_cdf(1 - Look(plan, look).chance)
        for look, numbers in zip(plan.looks, counts, strict=True)
    ]


@pytest.mark.parametrize("question", ["better", "not_worse"])
@pytest.mark.parametrize("stopping", RULES)
def test_this_is_what_the_gate_decides(plan: Plan, arm: Arm, stopping: str, question: str) -> None:
    """Outcome for outcome, and look for look, on runs of which some are plain and some are close."""
    asked = of(plan, stopping, question)
    drawn = np.concatenate([pairs(*chances, runs=2, seed=1) for chances in ((0.15, 0.05), (0.1, 0.1), (0.05, 0.12))])
    expected = outcomes(asked, drawn)
    for differences, outcome in zip(drawn, expected, strict=True):
        champion = np.where(differences < 0, 1.0, np.where(differences > 0, 0.0, np.arange(600) % 2))
        candidate = champion + differences
        for look in asked.looks:
            arms = {
                name: arm(asked, name, scores[:look])
                for name, scores in (("candidate", candidate), ("champion", champion))
            }
            verdict = gate.decide(asked, arms)
            if verdict.outcome != "HOLD":
                break
        assert {"PROMOTE": 1, "REJECT": -1, "HOLD": 0}[verdict.outcome] == outcome


@pytest.mark.parametrize("differing", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("stopping", RULES)
def test_equal_policies_are_called_better_at_most_alpha_of_the_time(
    plan: Plan, stopping: str, differing: float
) -> None:
    asked = of(plan, stopping, "better")
    assert (outcomes(asked, pairs(differing / 2, differing / 2)) == 1).mean() <= asked.level


@pytest.mark.parametrize("differing", [0.08, 0.15, 0.3])
@pytest.mark.parametrize("stopping", RULES)
def test_policies_worse_by_the_margin_are_promoted_at_most_alpha_of_the_time(
    plan: Plan, stopping: str, differing: float
) -> None:
    asked = of(plan, stopping, "not_worse")
    gained = (differing - asked.margin) / 2
    assert (outcomes(asked, pairs(gained, gained + asked.margin)) == 1).mean() <= asked.level + MONTE_CARLO
    twice = max((differing - 2 * asked.margin) / 2, 0.005)
    assert (outcomes(asked, pairs(twice, twice + 2 * asked.margin)) == 1).mean() <= 0.001


@pytest.mark.parametrize("stopping", ["fixed", "group_sequential"])
def test_the_stated_power_is_there_at_the_stated_size(plan: Plan, stopping: str) -> None:
    """Within two points. Looking four times costs less than that."""
    asked = of(plan, stopping, "not_worse")
    stated = statistics.pairs_power(600, gained=0.1, lost=0.1, limit=-asked.margin, alpha=asked.level)
    found = (outcomes(asked, pairs(0.1, 0.1)) == 1).mean()
    assert stated > 0.9
    assert found == pytest.approx(stated, abs=0.02)


def test_looking_early_saves_episodes(plan: Plan) -> None:
    """Of a policy that is 15 points better, most verdicts come at the second look."""
    asked = of(plan, "group_sequential", "better")
    better = pairs(0.2, 0.05)
    by_half = outcomes(replace(asked, looks=(150, 300, 600)), np.where(np.arange(600) < 300, better, 0))
    assert (by_half == 1).mean() > 0.9
    betting = outcomes(of(plan, "anytime", "better"), better)
    assert (betting == 1).mean() > 0.9


def test_without_a_price_for_looking_equal_policies_are_promoted(plan: Plan) -> None:
    """The planted fault: four looks, each at the full error rate."""
    drawn, promoted = pairs(0.15, 0.15), np.zeros(RUNS, bool)
    for look in RULES["group_sequential"]:
        seen = drawn[:, :look]
        promoted |= tango_zs(look, (seen > 0).sum(axis=1), (seen < 0).sum(axis=1), 0.0) > 1.645
    assert promoted.mean() > 2 * ALPHA


def sought(asked: Plan, differing: float, *, level: float | None = None) -> float:
    """How often somebody is promoted who seeks up to MOST_ATTEMPTS verdicts on fresh seeds until one says PROMOTE.

    The truth is the limit itself: no difference, or worse by the margin. level: of every attempt; None: the plan's.
    """
    truth = 0.0 if asked.question == "better" else asked.margin
    gained = (differing - truth) / 2
    promoted = np.zeros(RUNS, bool)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        drawn = pairs(gained, gained + truth, seed=attempt)
        plan = replace(asked, attempt=attempt) if level is None else replace(asked, alpha=level / 0.75)
        promoted |= outcomes(plan, drawn) == 1
    return float(promoted.mean())


@pytest.mark.parametrize("question", ["better", "not_worse"])
@pytest.mark.parametrize("stopping", RULES)
def test_seeking_verdicts_until_one_promotes_stays_within_alpha(plan: Plan, stopping: str, question: str) -> None:
    assert sought(of(plan, stopping, question), 0.2) <= ALPHA + MONTE_CARLO


def test_without_a_price_for_attempts_it_would_not(plan: Plan) -> None:
    """The planted fault: every attempt at the full error rate."""
    assert sought(of(plan, "fixed", "not_worse"), 0.2, level=ALPHA) > 3 * ALPHA


def test_the_levels_of_all_attempts_are_within_alpha_and_the_first_has_most(plan: Plan) -> None:
    levels = [replace(plan, attempt=number).level for number in range(1, MOST_ATTEMPTS + 1)]
    assert sum(levels) < plan.alpha
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == pytest.approx(0.75 * plan.alpha)
    assert Look(replace(plan, attempt=MOST_ATTEMPTS), plan.most).chance > 1 / MOST_DRAWS, "it can be reached"
