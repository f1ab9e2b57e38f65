"""Preview of the gate before anything is played: its plan, its power, and the number of episodes that it needs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from vqbet import bundle, registry, statistics
from vqbet.contract import Demonstrations
from vqbet.demos import store
from vqbet.evaluation.interim import Look
from vqbet.evaluation.plan import MOST_ATTEMPTS, Plan
from vqbet.stages import gate, retraining_history, worlds
from vqbet.stages.paths import Paths

if TYPE_CHECKING:
    from vqbet.config import TaskParams

NOBODY = "0" * 64  # instead of a digest that is not known yet
SPREAD, DIFFERING = 0.3, 0.2  # assumed where no earlier verdict allows an estimate


def run(root: Path, task: str, params: TaskParams) -> dict[str, str]:
    """Return rows that describe the plan of a comparison with a champion. Raises GateError as `gate.make_plan`."""
    plan = made(root, task, params, store.read(Paths(root, task).store))
    spread, differing, source = _seen(root, task)
    rows = {
        "question": _question(plan),
        "looks": f"after {', '.join(map(str, plan.looks))} episodes of each policy; {plan.stopping.replace('_', ' ')}",
        "seeds": f"{plan.first_seed} to {plan.seeds.stop - 1}, no other purpose has them",
        "slices": ", ".join(f"{part.name} {100 * part.share:.0f} %" for part in plan.slices),
        "against": ", ".join(("champion", *plan.baselines)),
        "attempt": f"{plan.attempt} on this policy; its error rate is {plan.level:.2g} of alpha {plan.alpha:g}",
        "must reach": f"{plan.metric} above {plan.floor:g}, {plan.min_modes} modes",
        "assumed": f"scores of one seed differ by {spread:.3f} (standard deviation), {100 * differing:.1f} % of "
        f"successes differ; {source}",
    }
    aimed, limit = _aim(plan)
    for look in plan.looks:
        rows[f"power at {look}"] = f"{100 * _power(plan, look, spread):.0f} % at a true difference of {aimed:+g}"
    scores = statistics.mean_needed(plan.power, spread=spread, difference=aimed, limit=limit, alpha=plan.level)
    rows[f"{100 * plan.power:.0f} % with one look"] = (
        f"after {scores} episodes by the score, {_by_success(plan, differing)}"
    )
    return rows | _trained_again(Paths(root, task))


def made(root: Path, task: str, params: TaskParams, demos: Demonstrations) -> Plan:
    """Return the plan of the next verdict, with invented digests. Raises GateError as `gate.make_plan`."""
    world = worlds.name(task, asked=params.prior.goal_steps > 0, params=params)
    digests = {"candidate": NOBODY, "champion": "1" * 64}
    return gate.make_plan(world, params, demos, digests, attempt=_attempt(Paths(root, task)))


def powerless(root: Path, task: str, plan: Plan) -> str:
    """Return a sentence where the power of the last look is below the plan's; "" otherwise."""
    spread, _, source = _seen(root, task)
    power = _power(plan, plan.most, spread)
    if power >= plan.power:
        return ""
    aimed, limit = _aim(plan)
    alpha = Look(plan, plan.most).chance
    needed = statistics.mean_needed(plan.power, spread=spread, difference=aimed, limit=limit, alpha=alpha)
    return (
        f"looks: at the last, of {plan.most} episodes, the power is {100 * power:.0f} % at a true difference of "
        f"{aimed:+g}, expected {100 * plan.power:.0f} % (scores of one seed differ by {spread:.3f}, "
        f"{source}); play {needed}"
    )


def _power(plan: Plan, look: int, spread: float) -> float:
    aimed, limit = _aim(plan)
    chance = Look(plan, look).chance
    return statistics.mean_power(look, spread=spread, difference=aimed, limit=limit, alpha=chance)


def _attempt(paths: Paths) -> int:
    """Return the number of the next attempt on the policy in the artefacts; 1 before its first gate."""
    if registry.empty() or not paths.policy.exists():
        return 1
    before = registry.Attempts(paths.task).of(bundle.read(paths.policy).digest)
    made = sum(one.simulated for one in before)
    return min(made + 1, MOST_ATTEMPTS)


def _trained_again(paths: Paths) -> dict[str, str]:
    """Return a row on how much the score varies between trainings of the policy in the artefacts, if known."""
    if not paths.policy.exists():
        return {}
    scores = retraining_history.retrained(paths.root, paths.task, bundle.read(paths.policy))
    if len(scores) < 2:
        return {"trained again": f"too seldom to say how far that moves the score: vqbet retrain {paths.task}"}
    deviation = statistics.Retraining(tuple(scores)).deviation
    return {"trained again": f"{len(scores)} times, scores of a standard deviation of {deviation:.3f}"}


def _question(plan: Plan) -> str:
    if plan.question == "better":
        return f"is its {plan.metric} better than the champion's; below {plan.margin:+g} it is not worth having"
    return f"is its {plan.metric} not worse than the champion's by {plan.margin:g}"


def _aim(plan: Plan) -> tuple[float, float]:
    """Return the true difference at which the power is computed, and the limit that the difference must exceed."""
    return (plan.margin, 0.0) if plan.question == "better" else (0.0, -plan.margin)


def _by_success(plan: Plan, differing: float) -> str:
    aimed, limit = _aim(plan)
    share = max(differing, abs(aimed), 1 / plan.most)
    gained, lost = (share + aimed) / 2, (share - aimed) / 2
    found = statistics.pairs_needed(plan.power, gained=gained, lost=lost, limit=limit, alpha=plan.level)
    return f"{found or 'more than 4000'} by success (exact)"


def _seen(root: Path, task: str) -> tuple[float, float, str]:
    """Return the standard deviation of paired score differences, the share of differing successes, and their source.

    Both are estimated from the verdicts with a champion.
    """
    found = [verdict for verdict, _ in retraining_history.judged(root, task) if verdict["comparison"]]
    if not found:
        return SPREAD, DIFFERING, "a guess, as no champion was compared yet"
    episodes = sum(verdict["episodes"] for verdict in found)
    squares = sum(verdict["episodes"] * verdict["comparison"]["score_spread"] ** 2 for verdict in found)
    pairs = sum(verdict["comparison"]["gained"] + verdict["comparison"]["lost"] for verdict in found)
    spread = max(math.sqrt(squares / episodes), 1e-3)
    return spread, pairs / episodes, f"as in {len(found)} verdicts, {episodes} episodes"
