"""Power of a whole session of trials: the chance that its looks, all together, end with PROMOTE. By successes.

The rules are those of `gate.decide` for a candidate against its floor and, where there is one, its champion, written
for many sessions at once; tests compare them with the gate. Where a look needs counts only, the power is exact: the
distribution of counts is carried from look to look, and what a look decides leaves it. For "anytime", which needs the
order of the trials, it is the share of many drawn sessions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy import signal, stats

from vqbet import statistics
from vqbet.contract import GateError
from vqbet.evaluation.interim import Look
from vqbet.evaluation.plan import Plan
from vqbet.statistics.pairs import tango_zs

PROMOTED, HELD, REJECTED = 1, 0, -1
DRAWN = 20_000  # sessions for "anytime": a standard error of 0.35 points at most
MOST_PAIRS = 200  # beyond this the counts take more than a second


@dataclass(frozen=True, slots=True)
class SessionCourse:
    """Course of many sessions. promoted: by look, the probability of PROMOTE by then. pairs: those run on average."""

    promoted: tuple[float, ...]
    pairs: float


def session_power(plan: Plan, *, both: float, gained: float, lost: float) -> float:
    """Return the probability of PROMOTE. Arguments and errors as of `session_course`."""
    return session_course(plan, both=both, gained=gained, lost=lost).promoted[-1]


def session_course(plan: Plan, *, both: float, gained: float, lost: float) -> SessionCourse:
    """Return how a session goes. both, gained, lost: shares of pairs that both arms solve, or only one of them.

    gained: by the candidate only; without a champion, `both` and `gained` are the candidate's successes. Invalid trials
    do not change it as long as they do not depend on the outcome. Raises GateError where these are no shares, or the
    plan does not judge successes or has more than MOST_PAIRS pairs.
    """
    shares = np.array([gained, lost, both, 1 - both - gained - lost])
    if (shares < -1e-9).any():
        raise GateError(f"power: expected shares of pairs that add up to 1 at most, got {both}, {gained} and {lost}")
    if plan.metric != "success" or plan.most > MOST_PAIRS:
        raise GateError(f"power: expected a plan of successes with {MOST_PAIRS} pairs at most, got {plan.most}")
    shares = np.clip(shares, 0, None) / np.clip(shares, 0, None).sum()
    return _drawn(plan, shares) if plan.stopping == "anytime" else _carried(plan, shares)


def decided(plan: Plan, mine: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the outcome of each session (row), and the pairs at which it stops; successes by session and pair."""
    outcomes, pairs = np.zeros(len(mine), np.int64), np.full(len(mine), plan.most)
    for look in (Look(plan, episodes) for episodes in plan.looks):
        now = _by_order(look, mine, theirs) if plan.stopping == "anytime" else _by_columns(look, mine, theirs)
        new = (outcomes == HELD) & (now != HELD)
        outcomes[new], pairs[new] = now[new], look.episodes
    return outcomes, pairs


def by_counts(look: Look, gained: np.ndarray, lost: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Return the outcomes of tables of counts at a look that needs no order."""
    plan, beyond = look.plan, NormalDist().inv_cdf(1 - look.chance)
    spread = math.sqrt(plan.floor * (1 - plan.floor) / look.episodes)
    above = (gained + both) / look.episodes - plan.floor
    z = above / spread if spread else np.where(above == 0, 0.0, np.copysign(np.inf, above))
    passed, failed = z > beyond, z < -beyond
    if plan.champion:
        limit, hopeless = _limits(plan)
        shown = tango_zs(look.episodes, gained, lost, limit) > beyond
        if plan.question == "better":
            shown &= stats.binom.sf(gained - 1, gained + lost, 0.5) <= look.chance
        passed = passed & shown
        failed = failed | (tango_zs(look.episodes, gained, lost, hopeless) < -beyond)
    return np.where(failed, REJECTED, np.where(passed, PROMOTED, HELD))


def _carried(plan: Plan, shares: np.ndarray) -> SessionCourse:
    """Return the exact course: counts (gained, lost, both) of undecided sessions, from look to look."""
    promoted, pairs, before, undecided = [0.0], 0.0, 0, np.ones((1, 1, 1))
    for look in (Look(plan, episodes) for episodes in plan.looks):
        pairs += (look.episodes - before) * float(undecided.sum())
        undecided = signal.convolve(undecided, _counts(look.episodes - before, shares), method="direct")
        now = by_counts(look, *np.indices(undecided.shape))
        promoted.append(min(promoted[-1] + float(undecided[now == PROMOTED].sum()), 1.0))
        undecided, before = np.where(now == HELD, undecided, 0.0), look.episodes
    return SessionCourse(tuple(promoted[1:]), pairs)


def _counts(pairs: int, shares: np.ndarray) -> np.ndarray:
    """Return the probability of every table of so many pairs, (gained, lost, both); impossible counts have no axis."""
    axes = np.indices([pairs + 1 if share > 0 else 1 for share in shares[:3]])
    cells = np.stack([*axes, pairs - axes.sum(axis=0)], axis=-1)
    found: np.ndarray = np.where(cells[..., 3] >= 0, stats.multinomial.pmf(np.maximum(cells, 0), pairs, shares), 0.0)
    return found


def _drawn(plan: Plan, shares: np.ndarray) -> SessionCourse:
    kind = np.random.default_rng(0).choice(4, (DRAWN, plan.most), p=shares)
    outcomes, pairs = decided(plan, (kind == 0) | (kind == 2), (kind == 1) | (kind == 2))
    promoted = tuple(float(((outcomes == PROMOTED) & (pairs <= look)).mean()) for look in plan.looks)
    return SessionCourse(promoted, float(pairs.mean()))


def _by_columns(look: Look, mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    one, two = mine[:, : look.episodes], theirs[:, : look.episodes]
    return by_counts(look, *(cells.sum(axis=1) for cells in (one & ~two, two & ~one, one & two)))


def _by_order(look: Look, mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    plan = look.plan
    one, two = (arm[:, : look.episodes].astype(float) for arm in (mine, theirs))
    passed, failed = _rich(plan, one, plan.floor), _rich(plan, 1 - one, 1 - plan.floor)
    if plan.champion:
        limit, hopeless = ((1 + value) / 2 for value in _limits(plan))
        halves = (one - two + 1) / 2
        passed, failed = passed & _rich(plan, halves, limit), failed | _rich(plan, 1 - halves, 1 - hopeless)
    return np.where(failed, REJECTED, np.where(passed, PROMOTED, HELD))


def _limits(plan: Plan) -> tuple[float, float]:
    """Return the difference that must be exceeded, and the one below which a check has failed."""
    return (0.0, plan.margin) if plan.question == "better" else (-plan.margin, -plan.margin)


def _rich(plan: Plan, values: np.ndarray, mean: float) -> np.ndarray:
    """Return in which sessions a bettor against "the mean is at most `mean`" has ever been rich enough."""
    wealth = statistics.log_wealth(values, mean, alpha=plan.level, most=plan.most)
    rich: np.ndarray = wealth.max(axis=1) >= math.log(1 / plan.level)
    return rich
