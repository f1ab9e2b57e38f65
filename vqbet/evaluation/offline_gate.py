"""The gate of a task without a world: a verdict from the records of held-out episodes, which can reject and only that.

    NOT_COMPARABLE  the records do not answer the plan's question
    REJECT          the policy is shown to be below the floor, or no better than a baseline of the plan
    HOLD            all else, however good: only trials on a robot show that a policy works

A record's score is 1 - the mean error of whole chunks over the channels' deviations, at least 0; its `mode` is the
episode's content and its `slice` the set. All references are recorded; only the plan's baselines reject. Pairs are the
episodes. Intervals are by bootstrap (`statistics.bootstrap_difference`), as scores of episodes are far from the ends of
0..1; with fewer than LEAST episodes nothing is shown. Plan and records suffice to recompute the verdict byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from vqbet import statistics
from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import records
from vqbet.evaluation.gate import Arm, Arms, Check, State, Verdict, no_verdict, rounded
from vqbet.evaluation.offline import REFERENCES
from vqbet.evaluation.plan import GATE_VERSION, Plan
from vqbet.statistics import Interval

WORLD = "held-out"  # in plan and records, where others name a world
LEAST = 5  # episodes of a set before it can show anything
SAME = 1e-3  # of a deviation: a smaller improvement is none, as of a policy that repeats the mean but for rounding
SHOWN = 16  # hexadecimal digits of an episode's sha256 in a plan
CANDIDATE = "candidate"
NEEDS = "held-out episodes cannot show that a policy works, so it needs robot trials"


def world(task: str) -> str:
    """Return what plan and records of a task name in the place of a world."""
    return f"{WORLD}:{task}"


def decide(plan: Plan, arms: Arms) -> Verdict:
    """Return the verdict on held-out episodes. arms: records by name, "candidate" and references.

    Raises GateError where a record is invalid or the plan is of another version of the rules.
    """
    if plan.version != GATE_VERSION:
        raise GateError(f"the plan is of gate version {plan.version}, this is {GATE_VERSION}; make a new plan")
    if problem := _incomparable(plan, arms):
        return no_verdict(plan, problem)
    ordered = {name: sorted(arm, key=lambda record: record.seed) for name, arm in arms.items()}
    checks = tuple(check for name in plan.held_out for check in _checks(plan, name, ordered))
    failed = [check.sentence() for check in checks if check.state == "failed"]
    undecided = [check.sentence() for check in checks if check.state == "undecided"]
    return replace(
        no_verdict(plan, "; ".join(["on held-out episodes", *failed] if failed else [NEEDS, *undecided])),
        outcome="REJECT" if failed else "HOLD",
        episodes=plan.most,
        checks=checks,
        numbers={name: _numbers(plan, arm) for name, arm in ordered.items()},
        slices={name: _means(name, ordered) for name in plan.held_out},
    )


def identities(plan: Plan) -> list[tuple[str, str]]:
    """Return set and content of the episode of each seed of the plan, in order."""
    return [(name, content) for name, contents in plan.held_out.items() for content in contents]


def _incomparable(plan: Plan, arms: Arms) -> str:
    """Return the reason why these records do not answer the plan's question; empty where they do."""
    if plan.candidate == plan.champion:
        return f"candidate and champion are the same policy, digest {plan.candidate}"
    needed = {CANDIDATE, *plan.baselines}
    if not needed <= set(arms) <= {CANDIDATE, *REFERENCES}:
        return (
            f"the plan compares {', '.join(sorted(needed))}; the records are of {', '.join(sorted(arms)) or 'nobody'}"
        )
    known = identities(plan)
    for name, arm in arms.items():
        counted = Counter(record.seed for record in arm)
        if counted != Counter(plan.seeds):
            return f"{name}: expected one record of each of {plan.most} episodes, got {len(arm)} of {len(counted)}"
        problem = next(
            filter(None, (_foreign(plan, name, record, *known[record.seed - plan.first_seed]) for record in arm)), ""
        )
        if problem:
            return f"{name}: {problem}"
    return ""


def _foreign(plan: Plan, name: str, record: EpisodeRecord, part: str, content: str) -> str:
    records.check(record, f"{name}, episode {record.seed}")
    for what, found, expected in (
        ("is under plan", record.plan, plan.sha256),
        ("is in world", record.world, plan.world),
        ("is by the digest", record.digest, plan.candidate if name == CANDIDATE else ""),
        ("is in the set", record.slice, part),
        ("has the content", record.mode, content),
    ):
        if found != expected:
            return f"episode {record.seed} {what} {found!r}, expected {expected!r}"
    return ""


def _checks(plan: Plan, part: str, arms: Arms) -> Iterator[Check]:
    """Yield the checks on one set: the floor, then each baseline."""
    mine = _scores(part, arms[CANDIDATE])
    yield _check(f"floor on held-out {part}", plan, mine, np.zeros(len(mine)), limit=plan.floor)
    for name in plan.baselines:
        yield _check(f"better than {name} on held-out {part}", plan, mine, _scores(part, arms[name]), limit=0.0)


def _check(name: str, plan: Plan, mine: np.ndarray, theirs: np.ndarray, *, limit: float) -> Check:
    """Return a check: passed where the interval lies above `limit`, failed where it does nowhere by more than SAME."""
    found = _interval(plan, mine, theirs)
    value, low, high = (rounded(number) for number in (found.estimate, found.low, found.high))
    shown = len(mine) >= LEAST
    state: State = "passed" if shown and low > limit else "failed" if shown and high <= limit + SAME else "undecided"
    return Check(name, state, value, low, high, rounded(limit), None if shown else LEAST)


def _interval(plan: Plan, mine: np.ndarray, theirs: np.ndarray) -> Interval:
    return statistics.bootstrap_difference(mine, theirs, 1 - plan.alpha)


def _numbers(plan: Plan, arm: Arm) -> dict[str, float]:
    """Return score, with its interval, and errors of an arm, over all sets."""
    scores = np.array([record.score for record in arm])
    interval = _interval(plan, scores, np.zeros(len(scores)))
    numbers = {"episodes": float(len(arm)), "score": interval.estimate}
    numbers |= {"score_low": interval.low, "score_high": interval.high}
    numbers |= {name: float(np.mean([record.metrics[name] for record in arm])) for name in _metrics(arm)}
    return {name: rounded(number) for name, number in numbers.items()}


def _metrics(arm: Arm) -> list[str]:
    return sorted(set.intersection(*(set(record.metrics) for record in arm)))


def _means(part: str, arms: Arms) -> Mapping[str, float]:
    means = {name: rounded(float(_scores(part, arm).mean())) for name, arm in arms.items()}
    return {"episodes": float(len(_scores(part, arms[CANDIDATE]))), **means}


def _scores(part: str, arm: Arm) -> np.ndarray:
    return np.array([record.score for record in arm if record.slice == part])
