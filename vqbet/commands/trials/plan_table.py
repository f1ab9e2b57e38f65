"""Table of a locked plan of robot trials: what it asks, what it takes, how likely it decides, and what to do next."""

from __future__ import annotations

import math
from pathlib import Path

from vqbet import statistics
from vqbet.evaluation.interim import Look
from vqbet.evaluation.plan import Plan
from vqbet.evaluation.trials import session_power
from vqbet.evaluation.trials.session_power import SessionCourse
from vqbet.evaluation.trials.trial_plan import TrialPlan

DIFFERING = 0.2  # share of pairs in which one policy alone succeeds, assumed for the power
ABOVE = 0.3  # true success above the floor, assumed for the power
MOST_RATE = 0.95
SPREAD = 0.3  # standard deviation of differences of credits, assumed for the power


def rows(plan: TrialPlan, folder: Path) -> dict[str, str]:
    """Return rows about a plan in its folder. Nothing in them tells the order of the policies."""
    judged = plan.judged
    table = {
        "plan": f"{plan.sha256[:12]}, locked and sealed",
        "question": _question(plan),
        "policies": ", ".join(f"{arm} {digest[:12]}" for arm, digest in plan.arms.items()),
        "attempt": f"{judged.attempt} on this candidate by robot; its error rate is {judged.level:.2g} of alpha "
        f"{judged.alpha:g}",
        "trials": f"{plan.trials} at most: {plan.pairs} initial conditions, each for {_each(plan)}",
        "blocks": f"{math.ceil(plan.pairs / plan.block)} of {plan.block * len(plan.arms)} trials, each in random order",
        "looks": f"after {', '.join(map(str, judged.looks))} conditions; {judged.stopping.replace('_', ' ')}",
        **_powers(plan),
        "invalid trials": f"at most {100 * plan.most_invalid:.0f} %: {', '.join(plan.invalid)}",
    }
    if plan.after:
        table["completes"] = f"simulated verdict {plan.after[:12]}"
    return table | {
        "server's key": plan.server_key,
        "folder": f"{folder}, with the secret salt; keep it",
        "operator": f"sets up {'the picture' if _pictured(plan) else 'the condition'} that the page shows, taps start, "
        "and enters how far the robot got",
        "next": f"vqbet trials run {plan.task}",
    }


def _question(plan: TrialPlan) -> str:
    judged = plan.judged
    asked = f"is the candidate's {judged.metric} on {plan.robot}"
    if not judged.champion:
        return f"{asked} above {judged.floor:g}; there is no champion to compare with"
    than = "better than" if judged.question == "better" else f"not worse by {judged.margin:g} than"
    return f"{asked} {than} the champion's, and above {judged.floor:g}"


def _each(plan: TrialPlan) -> str:
    return "both policies" if plan.judged.champion else "the candidate"


def _pictured(plan: TrialPlan) -> bool:
    return all(condition.picture for condition in plan.conditions)


def _powers(plan: TrialPlan) -> dict[str, str]:
    """Return rows on power and duration, with what they assume."""
    judged = plan.judged
    rate = min(judged.floor + ABOVE, MOST_RATE)
    aimed, limit = _aim(judged)
    if judged.metric == "success" and judged.most <= session_power.MOST_PAIRS:
        course = _course(judged, rate, aimed)
        assumed = _said(judged, rate, aimed)
    else:
        course = _approximate(judged, rate, aimed, limit)
        assumed = f"{_said(judged, rate, aimed)}; by the normal approximation, look by look"
    table = {"assumed": assumed}
    for pairs, power in zip(judged.looks, course.promoted, strict=True):
        table[f"power at {pairs}"] = f"{100 * power:.0f} % are promoted by then"
    table[f"power {100 * judged.power:.0f} %"] = _needed(judged, rate, aimed, limit)
    minutes = plan.timeout_s / 60 * len(plan.arms)
    table["robot time"] = (
        f"{minutes * course.pairs:.0f} minutes expected, {minutes * plan.pairs:.0f} at most, where each trial takes "
        f"its {plan.timeout_s:g} s; setting up comes on top"
    )
    return table


def _aim(judged: Plan) -> tuple[float, float]:
    """Return the true difference at which the power is computed, and the limit that it must exceed."""
    if not judged.champion:
        return 0.0, judged.floor
    return (judged.margin, 0.0) if judged.question == "better" else (0.0, -judged.margin)


def _shares(judged: Plan, rate: float, aimed: float) -> tuple[float, float, float]:
    """Return the assumed shares of pairs that both arms solve, and that the candidate or the champion alone does."""
    if not judged.champion:
        return rate, 0.0, 0.0
    differing = min(max(DIFFERING, aimed), 2 * (1 - rate) + aimed)
    gained, lost = (differing + aimed) / 2, (differing - aimed) / 2
    both = max(rate - gained, 0.0)
    return both, min(gained, 1 - both - lost), lost


def _course(judged: Plan, rate: float, aimed: float) -> SessionCourse:
    both, gained, lost = _shares(judged, rate, aimed)
    return session_power.session_course(judged, both=both, gained=gained, lost=lost)


def _approximate(judged: Plan, rate: float, aimed: float, limit: float) -> SessionCourse:
    """Return the course by the power of each look alone, for scores and for many pairs."""
    truth, spread = _normal(judged, rate, aimed)
    promoted = [
        statistics.mean_power(pairs, spread=spread, difference=truth, limit=limit, alpha=Look(judged, pairs).chance)
        for pairs in judged.looks
    ]
    steps = zip(judged.looks, (0, *judged.looks), (0.0, *promoted), strict=False)
    return SessionCourse(tuple(promoted), sum((pairs - before) * (1 - decided) for pairs, before, decided in steps))


def _normal(judged: Plan, rate: float, aimed: float) -> tuple[float, float]:
    """Return the assumed mean and deviation of the values that are compared with the limit."""
    return (aimed, SPREAD) if judged.champion else (rate, math.sqrt(rate * (1 - rate)))


def _needed(judged: Plan, rate: float, aimed: float, limit: float) -> str:
    """Return the conditions at which one look has the power that the parameters ask for."""
    if judged.champion and judged.metric == "success":
        _, gained, lost = _shares(judged, rate, aimed)
        found = statistics.pairs_needed(judged.power, gained=gained, lost=lost, limit=limit, alpha=judged.level)
        return f"by one look after {found or 'more than 4000'} conditions, floor aside"
    truth, spread = _normal(judged, rate, aimed)
    if truth <= limit:
        return "by no number of conditions"
    needed = statistics.mean_needed(judged.power, spread=spread, difference=truth, limit=limit, alpha=judged.level)
    return f"by one look after {needed} conditions"


def _said(judged: Plan, rate: float, aimed: float) -> str:
    if not judged.champion:
        return f"its {judged.metric} is {rate:.2g}"
    better = f"a candidate better by {aimed:g}" if aimed else "equal policies"
    if judged.metric != "success":
        return f"{better}, whose credits differ by {SPREAD:g} (standard deviation)"
    _, gained, lost = _shares(judged, rate, aimed)
    return f"{better}: the candidate succeeds in {100 * rate:.0f} %, {100 * (gained + lost):.0f} % of the pairs differ"
