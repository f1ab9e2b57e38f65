"""From a plan and episode records to a verdict. Nothing else is read, so a verdict can be replayed byte for byte.

    NOT_COMPARABLE  the records do not answer the plan's question: other plan, world, digest or seeds
    PROMOTE         every check passed
    REJECT          a check failed, or the plan's most episodes were played and one is still undecided
    HOLD            no check failed and one is undecided; `more_episodes` says how many more would decide

Checks: the score above the floor, enough modes visited, better than each baseline and, where there is a champion,
better than it. "Better" and "above" mean that the lower end of the two-sided 1 - alpha interval is. A comparison with
the champion fails only where the interval lies below the margin: no improvement worth having is possible any more. A
certain improvement is promoted however small. Since all checks must pass, their error rates do not add up; since the
interval is two-sided, one look promotes an equal policy with probability alpha / 2, and a second, larger one after
HOLD keeps the sum within alpha. The second look is a new plan with every episode played again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import records, statistics
from vqbet.evaluation.plan import GATE_VERSION, Plan, spec_sha256
from vqbet.evaluation.statistics import Interval

__all__ = ["Check", "Plan", "Verdict", "arms", "decide", "replay", "spec_sha256", "write"]

DIGITS = 6  # of every number in a verdict, so that the last bits of a processor's arithmetic do not show

Outcome = Literal["PROMOTE", "REJECT", "HOLD", "NOT_COMPARABLE"]
State = Literal["passed", "failed", "undecided"]
Arm = Sequence[EpisodeRecord]


@dataclass(frozen=True, slots=True)
class Check:
    """One condition: `value` (with its interval) against `limit`. Undecided: neither passed nor failed."""

    name: str
    state: State
    value: float
    low: float
    high: float
    limit: float
    needed: int | None  # episodes, those played included, that would decide at the observed rates; None: unknown

    @property
    def passed(self) -> bool:
        return self.state == "passed"

    def sentence(self) -> str:
        interval = "" if self.low == self.high else f" ({self.low:.3f} to {self.high:.3f})"
        return f"{self.name} {self.state}: {self.value:.3f}{interval}, limit {self.limit:.3f}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer, and everything it rests on."""

    outcome: Outcome
    reason: str
    plan: str  # sha256
    candidate: str  # digest; empty where the records do not agree on one
    champion: str  # digest; empty where there is none
    more_episodes: int  # 0 unless HOLD
    checks: tuple[Check, ...] = ()
    numbers: Mapping[str, Mapping[str, float]] | None = None  # per arm; None where NOT_COMPARABLE
    version: int = GATE_VERSION

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "checks": [asdict(check) for check in self.checks]}


def decide(plan: Plan, candidate: Arm, champion: Arm | None, baselines: Mapping[str, Arm]) -> Verdict:
    """The verdict on a candidate. Without a champion (None) only the absolute checks are made, and the reason says so.

    Raises GateError where a record is not valid in itself or the plan is of another version of these rules.
    """
    if plan.version != GATE_VERSION:
        raise GateError(f"the plan is of gate version {plan.version}, this is {GATE_VERSION}; make a new plan")
    digests = _digest(candidate), _digest(champion or ())
    problem = _incomparable(plan, candidate, champion, baselines)
    if problem:
        return Verdict("NOT_COMPARABLE", problem, plan.sha256, *digests, more_episodes=0)
    checks = tuple(_checks(plan, candidate, champion, baselines))
    outcome, reason, more = _outcome(plan, checks, first=champion is None)
    played = {"candidate": candidate, **({} if champion is None else {"champion": champion}), **baselines}
    numbers = {name: _numbers(plan, arm) for name, arm in played.items()}
    return Verdict(outcome, reason, plan.sha256, *digests, more, checks, numbers)


def arms(episodes: Arm) -> dict[str, list[EpisodeRecord]]:
    """Records by the policy that played them, in order."""
    found: dict[str, list[EpisodeRecord]] = {}
    for record in episodes:
        found.setdefault(record.policy, []).append(record)
    return found


def write(path: Path, verdict: Verdict) -> None:
    """Raises GateError where the file cannot be written."""
    records.save(path, records.document(verdict.to_json()))


def replay(folder: Path) -> Verdict:
    """Decide again from the evidence in a task's artefact folder, and compare with the verdict that lies there.

    Reads evaluation/plan.json, evaluation/records.jsonl (candidate and baselines), gate/champion.jsonl (where there was
    a champion) and gate/verdict.json. Raises GateError where one is missing or damaged, or the verdict's bytes differ.
    """
    plan = Plan.read(folder / "evaluation" / "plan.json")
    played = arms(records.read(folder / "evaluation" / "records.jsonl"))
    rival = folder / "gate" / "champion.jsonl"
    champion = records.read(rival) if rival.exists() else None
    verdict = decide(plan, played.pop("candidate", []), champion, played)
    path = folder / "gate" / "verdict.json"
    if records.load(path) != records.document(verdict.to_json()):
        raise GateError(
            f"{path}: the evidence beside it gives another verdict ({verdict.outcome}: {verdict.reason}); "
            "plan, records or verdict were changed after the fact: evaluate again"
        )
    return verdict


def _incomparable(plan: Plan, candidate: Arm, champion: Arm | None, baselines: Mapping[str, Arm]) -> str:
    """Why these records do not answer the plan's question; empty where they do."""
    if set(baselines) != set(plan.baselines):
        return f"the plan names the baselines {sorted(plan.baselines)}, the records hold {sorted(baselines)}"
    named = [("candidate", candidate), *sorted(baselines.items())]
    if champion is not None:
        named.insert(1, ("champion", champion))
    for name, arm in named:
        problem = _foreign(plan, name, arm) or _seeds(plan, arm)
        if problem:
            return f"{name}: {problem}"
    if champion is not None and _digest(candidate) == _digest(champion):
        return f"candidate and champion are the same policy, digest {_digest(candidate)}"
    return ""


def _foreign(plan: Plan, name: str, arm: Arm) -> str:
    for record in arm:
        records.check(record, f"{name}, seed {record.seed}")
        if record.policy != name:
            return f"seed {record.seed} was played by {record.policy!r}"
        if record.plan != plan.sha256:
            return f"seed {record.seed} was played under plan {record.plan}, not {plan.sha256}"
        if record.world != plan.world:
            return f"seed {record.seed} was played in world {record.world!r}, not {plan.world!r}"
    digests = sorted({record.digest for record in arm})
    if len(digests) > 1:
        return f"the records mix the digests {', '.join(repr(digest) for digest in digests)}"
    if name in ("candidate", "champion") and digests == [""]:
        return "the records name no bundle digest"
    return ""


def _seeds(plan: Plan, arm: Arm) -> str:
    seeds = Counter(record.seed for record in arm)
    for what, found in (
        ("missing", sorted(set(plan.seeds) - set(seeds))),
        ("outside the plan", sorted(set(seeds) - set(plan.seeds))),
        ("played twice", sorted(seed for seed, count in seeds.items() if count > 1)),
    ):
        if found:
            first = ", ".join(str(seed) for seed in found[:5])
            return f"{len(found)} seeds are {what} ({first}{', ...' if len(found) > 5 else ''})"
    return ""


def _checks(plan: Plan, candidate: Arm, champion: Arm | None, baselines: Mapping[str, Arm]) -> list[Check]:
    mine = _values(plan.metric, candidate)
    interval = statistics.mean_interval(mine, plan.confidence)
    needed = statistics.episodes_to_decide(mine, above=plan.floor, below=plan.floor, confidence=plan.confidence)
    found = [_check("floor", interval, limit=plan.floor, hopeless=plan.floor, needed=needed)]
    found.append(_modes_check(plan, candidate))
    rivals = [(name, baselines[name], 0.0) for name in plan.baselines]
    if champion is not None:
        rivals.append(("champion", champion, plan.margin))
    for name, arm, hopeless in rivals:
        theirs = _values(plan.metric, arm)
        interval = statistics.paired_difference(mine, theirs, plan.confidence)
        needed = statistics.paired_episodes_to_decide(
            mine, theirs, above=0.0, below=hopeless, confidence=plan.confidence
        )
        found.append(_check(f"better than {name}", interval, limit=0.0, hopeless=hopeless, needed=needed))
    return found


def _check(name: str, interval: Interval, *, limit: float, hopeless: float, needed: int | None) -> Check:
    """Passed where the interval lies above `limit`, failed where it lies below `hopeless`."""
    value, low, high = (_rounded(number) for number in (interval.estimate, interval.low, interval.high))
    state: State = "passed" if low > limit else "failed" if high < hopeless else "undecided"
    return Check(name, state, value, low, high, limit, needed)


def _modes_check(plan: Plan, candidate: Arm) -> Check:
    """How many modes were visited is counted, not estimated: it passes or fails."""
    visited = float(_modes(candidate))
    state: State = "passed" if visited >= plan.min_modes else "failed"
    return Check("modes", state, visited, visited, visited, float(plan.min_modes), plan.episodes)


def _outcome(plan: Plan, checks: Sequence[Check], *, first: bool) -> tuple[Outcome, str, int]:
    """Outcome, reason and how many more episodes."""
    against = "no champion yet, so only absolute floors were checked" if first else "against the champion, same seeds"
    failed = [check for check in checks if check.state == "failed"]
    undecided = [check for check in checks if check.state == "undecided"]
    if failed:
        return "REJECT", f"{against}; " + "; ".join(check.sentence() for check in failed), 0
    if not undecided:
        return "PROMOTE", f"{against}; " + "; ".join(check.sentence() for check in checks), 0
    sentences = "; ".join(check.sentence() for check in undecided)
    left = plan.max_episodes - plan.episodes
    if not left:
        return "REJECT", f"{against}; after the plan's most episodes ({plan.max_episodes}) still {sentences}", 0
    needed = [check.needed for check in undecided]
    known = [number - plan.episodes for number in needed if number is not None]
    more = min(max([*known, 1]), left) if len(known) == len(needed) else left
    return "HOLD", f"{against}; {sentences}; {more} more episodes, played under a new plan, may decide", more


def _numbers(plan: Plan, arm: Arm) -> dict[str, float]:
    interval = statistics.mean_interval(_values(plan.metric, arm), plan.confidence)
    numbers = {"episodes": float(len(arm)), "modes": float(_modes(arm))}
    for metric in ("score", "success"):
        interval = statistics.mean_interval(_values(metric, arm), plan.confidence)
        numbers |= {metric: interval.estimate, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
    numbers["mode_entropy_bits"] = statistics.mode_entropy(record.mode for record in arm)
    return {name: _rounded(number) for name, number in numbers.items()}


def _rounded(number: float) -> float:
    return round(float(number), DIGITS) + 0.0  # no minus zero


def _values(metric: str, arm: Arm) -> Float[np.ndarray, " E"]:
    """One metric, by seed."""
    ordered = sorted(arm, key=lambda record: record.seed)
    return np.array([float(getattr(record, metric)) for record in ordered])


def _modes(arm: Arm) -> int:
    return len({record.mode for record in arm} - {""})


def _digest(arm: Arm) -> str:
    """The digest that all records of an arm name; empty where they do not agree on one."""
    digests = {record.digest for record in arm}
    return digests.pop() if len(digests) == 1 else ""
