"""The promotion gate: a verdict from a plan and episode records alone, so that it can be replayed byte for byte.

    NOT_COMPARABLE  the records do not answer the plan's question: other plan, world, machine, digest or seeds
    PROMOTE         every check passed
    REJECT          a check failed
    HOLD            no check failed and one is undecided; `more_episodes` says how many more would decide

Checks: score above the floor, enough modes visited, better than each baseline, worse in no slice, and, where there is a
champion, better than the champion or not worse by the margin, as the plan asks. "Above" and "better" refer to the lower
end of the interval. A check fails where the upper end excludes passing: for "better", where it excludes an improvement
by the margin. A certain improvement is promoted, however small.

Error rates: over all looks of the plan, each end of an interval errs with probability `plan.level`, and all checks must
pass. The levels of all attempts on a candidate add up to alpha, which bounds the chance of a wrong promotion. Where few
pairs differ, the normal approximation fails: "better" also needs the exact test of an exchange. The records end with
the first look that decides: playing on for another verdict yields NOT_COMPARABLE.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from vqbet import statistics
from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import records
from vqbet.evaluation.interim import Look
from vqbet.evaluation.plan import GATE_VERSION, Plan
from vqbet.files import atomic, canonical
from vqbet.statistics import Interval, Pairs
from vqbet.statistics.multiple import holm

DIGITS = 6  # of every number in a verdict, to hide rounding differences between processors

Outcome = Literal["PROMOTE", "REJECT", "HOLD", "NOT_COMPARABLE"]
State = Literal["passed", "failed", "undecided"]
Arm = Sequence[EpisodeRecord]
Arms = Mapping[str, Arm]
Slices = Mapping[str, Mapping[str, float]]


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
    chance: float | None = None  # p-value of the exact test, if any

    @property
    def passed(self) -> bool:
        return self.state == "passed"

    def sentence(self) -> str:
        interval = "" if self.low == self.high else f" ({self.low:.3f} to {self.high:.3f})"
        exact = "" if self.chance is None else f", exact p {self.chance:.3g}"
        return f"{self.name} {self.state}: {self.value:.3f}{interval}, limit {self.limit:.3f}{exact}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a plan, with all checks and numbers that led to it."""

    outcome: Outcome
    reason: str
    plan: str  # sha256
    candidate: str  # digest
    champion: str  # digest; empty where there is none
    episodes: int  # of each arm
    more_episodes: int  # 0 unless HOLD, and where no number would decide
    checks: tuple[Check, ...] = ()
    looked: tuple[Check, ...] = ()  # at each look, the check against the champion, or of the floor without a champion
    numbers: Mapping[str, Mapping[str, float]] | None = None  # per arm; None where NOT_COMPARABLE
    comparison: Mapping[str, float] | None = None  # with the champion, by other methods; None without a champion
    slices: Slices | None = None  # score and comparison by slice
    attempt: int = 1  # number of attempts on the candidate, this one included
    level: float = 0.0  # the share of alpha of this attempt
    version: int = GATE_VERSION

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "checks": [asdict(check) for check in self.checks],
            "looked": [asdict(check) for check in self.looked],
        }


def decide(plan: Plan, arms: Arms) -> Verdict:
    """Return the verdict at the last look that the records reach. `arms`: by name, "candidate", "champion", baselines.

    Without a champion only the absolute checks are made, and the reason says so. Raises GateError where a record is
    invalid or the plan is of another version of these rules.
    """
    if plan.version != GATE_VERSION:
        raise GateError(f"the plan is of gate version {plan.version}, this is {GATE_VERSION}; make a new plan")
    problem = _incomparable(plan, arms)
    if problem:
        return no_verdict(plan, problem)
    ordered = {name: sorted(arm, key=lambda record: record.seed) for name, arm in arms.items()}
    played, looked = len(ordered["candidate"]), list[Check]()
    for look in (Look(plan, episodes) for episodes in plan.looks if episodes <= played):
        seen = {name: arm[: look.episodes] for name, arm in ordered.items()}
        slices = _slices(plan, seen)
        checks = tuple(_checks(look, seen, slices))
        outcome, reason, more = _outcome(look, checks)
        looked.append(_question(checks))
        if outcome != "HOLD" and look.episodes < played:
            return no_verdict(
                plan, f"the verdict was {outcome} after {look.episodes} episodes, and {played} were played"
            )
    comparison = _comparison(plan, ordered["candidate"], ordered["champion"]) if plan.champion else None
    return replace(
        no_verdict(plan, reason + _by_itself(comparison) + plan.repeated),
        outcome=outcome,
        episodes=played,
        more_episodes=more,
        checks=checks,
        looked=tuple(looked),
        numbers={name: _numbers(look, arm) for name, arm in ordered.items()},
        comparison=comparison,
        slices=slices,
    )


def by_policy(episodes: Arm) -> dict[str, list[EpisodeRecord]]:
    """Group records by policy, in order."""
    found: dict[str, list[EpisodeRecord]] = {}
    for record in episodes:
        found.setdefault(record.policy, []).append(record)
    return found


def write(path: Path, verdict: Verdict) -> None:
    """Write the verdict as canonical JSON. Raises GateError where the file cannot be written."""
    atomic.write(path, canonical.document(verdict.to_json()), GateError)


def replay(folder: Path, rule: Callable[[Plan, Arms], Verdict] = decide) -> Verdict:
    """Decide again, by `rule`, from plan.json and records.jsonl of a folder, and compare with its verdict.json.

    Without played episodes there are no records. Raises GateError where plan or verdict are missing, a file is damaged,
    or the verdict's bytes differ.
    """
    plan, played = Plan.read(folder / "plan.json"), folder / "records.jsonl"
    verdict = rule(plan, by_policy(records.read(played)) if played.exists() else {})
    path = folder / "verdict.json"
    if records.load(path) != canonical.document(verdict.to_json()):
        raise GateError(
            f"{path}: the evidence beside it gives another verdict ({verdict.outcome}: {verdict.reason}); "
            "plan, records or verdict were changed after the fact: run the gate again"
        )
    return verdict


def no_verdict(plan: Plan, reason: str) -> Verdict:
    """Return a verdict NOT_COMPARABLE for this reason."""
    said, level = (plan.sha256, plan.candidate, plan.champion), rounded(plan.level)
    return Verdict("NOT_COMPARABLE", reason, *said, 0, 0, attempt=plan.attempt, level=level)


def _incomparable(plan: Plan, arms: Arms) -> str:
    """Return the reason why these records do not answer the plan's question; empty where they do."""
    if plan.candidate == plan.champion:
        return f"candidate and champion are the same policy, digest {plan.candidate}"
    names = ("candidate", *(("champion",) if plan.champion else ()), *plan.baselines)
    if set(arms) != set(names):
        return f"the plan compares {', '.join(names)}; the records are of {', '.join(sorted(arms)) or 'nobody'}"
    digests = {"candidate": plan.candidate, "champion": plan.champion}
    for name in names:
        problem = _foreign(plan, name, digests.get(name, ""), arms[name]) or _seeds(plan, arms[name])
        if problem:
            return f"{name}: {problem}"
    sizes = {len(arms[name]) for name in names}
    if len(sizes) > 1:
        return "the arms differ in length: " + ", ".join(f"{name} {len(arms[name])}" for name in names)
    return ""


def _foreign(plan: Plan, name: str, digest: str, arm: Arm) -> str:
    planned = plan.sha256
    for record in arm:
        records.check(record, f"{name}, seed {record.seed}")
        for what, found, expected in (
            ("by", record.policy, name),
            ("under plan", record.plan, planned),
            ("in world", record.world, plan.world),
            ("by the digest", record.digest, digest),
            ("on the machine", record.machine, plan.machine),
            ("in the slice", record.slice, plan.slice_of(record.seed).name),
        ):
            if found != expected:
                return f"seed {record.seed} was played {what} {found!r}, expected {expected!r}"
    return ""


def _seeds(plan: Plan, arm: Arm) -> str:
    """Return a problem unless an arm's seeds are the plan's first ones, each once, up to one of its looks."""
    seeds = Counter(record.seed for record in arm)
    upto = next((look for look in plan.looks if look >= len(seeds)), plan.most)
    wanted = set(range(plan.first_seed, plan.first_seed + upto))
    for what, found in (
        ("played twice", sorted(seed for seed, count in seeds.items() if count > 1)),
        ("outside the plan", sorted(set(seeds) - set(plan.seeds))),
        (f"missing of the first {upto}", sorted(wanted - set(seeds))),
    ):
        if found:
            first = ", ".join(str(seed) for seed in found[:5])
            return f"{len(found)} seeds are {what} ({first}{', ...' if len(found) > 5 else ''})"
    return ""


def _checks(look: Look, arms: Arms, slices: Slices) -> list[Check]:
    plan = look.plan
    mine = _values(plan.metric, arms["candidate"])
    needed = look.needed(mine, above=plan.floor, below=plan.floor)
    found = [_check("floor", look.interval(mine), limit=plan.floor, hopeless=plan.floor, needed=needed)]
    found.append(_modes_check(plan, arms["candidate"]))
    found += [_better(look, name, mine, _values(plan.metric, arms[name]), hopeless=0.0) for name in plan.baselines]
    if "champion" in arms:
        theirs = _values(plan.metric, arms["champion"])
        if plan.question == "better":
            found.append(_better(look, "champion", mine, theirs, hopeless=plan.margin))
        else:
            found.append(_not_worse(look, mine, theirs))
        if len(plan.slices) > 1:
            found.append(_no_slice_worse(look, slices))
    return found


def _check(
    name: str, interval: Interval, *, limit: float, hopeless: float, needed: int | None, chance: float | None = None
) -> Check:
    """Return a check: passed where the interval lies above `limit`, failed where it lies below `hopeless`."""
    value, low, high = (rounded(number) for number in (interval.estimate, interval.low, interval.high))
    state: State = "passed" if low > limit else "failed" if high < hopeless else "undecided"
    return Check(name, state, value, low, high, rounded(limit), needed, chance)


def _better(look: Look, name: str, mine: np.ndarray, theirs: np.ndarray, *, hopeless: float) -> Check:
    pairs = statistics.halves(mine, theirs)
    needed = look.needed(pairs, above=0.5, below=(hopeless + 1) / 2)
    interval = look.difference(mine, theirs)
    check = _check(f"better than {name}", interval, limit=0.0, hopeless=hopeless, needed=needed)
    if look.plan.stopping == "anytime" or not check.passed:
        return check
    chance = statistics.exchange(mine, theirs, draws=look.draws)
    state: State = "passed" if chance <= look.chance else "undecided"
    return replace(check, state=state, chance=rounded(chance))


def _not_worse(look: Look, mine: np.ndarray, theirs: np.ndarray) -> Check:
    pairs, limit = statistics.halves(mine, theirs), -look.plan.margin
    needed = look.needed(pairs, above=(limit + 1) / 2, below=(limit + 1) / 2)
    interval = look.difference(mine, theirs)
    return _check("not worse than champion", interval, limit=limit, hopeless=limit, needed=needed)


def _no_slice_worse(look: Look, slices: Slices) -> Check:
    """Return a check that fails where the candidate is shown to be worse in any slice at this look (Holm).

    For the question "not_worse": worse by more than the margin.
    """
    name, worst = min(slices.items(), key=lambda item: item[1]["worse_p"])
    state: State = "failed" if worst["worse_p"] <= look.chance else "passed"
    value, low, high = worst["difference"], worst["difference_low"], worst["difference_high"]
    return Check(f"no slice worse (worst: {name})", state, value, low, high, 0.0, None, worst["worse_p"])


def _modes_check(plan: Plan, candidate: Arm) -> Check:
    """Return the check of the modes, a count without an interval. Missing modes fail only at the last look."""
    visited, last = float(_modes(candidate)), len(candidate) == plan.most
    state: State = "passed" if visited >= plan.min_modes else "failed" if last else "undecided"
    return Check("modes", state, visited, visited, visited, float(plan.min_modes), plan.most)


def _question(checks: Sequence[Check]) -> Check:
    """Return the check against the champion; without a champion, that of the floor."""
    asked = [check for check in checks if check.name.endswith("than champion")]
    return asked[0] if asked else checks[0]


def _outcome(look: Look, checks: Sequence[Check]) -> tuple[Outcome, str, int]:
    """Return outcome, reason and the number of further episodes needed."""
    plan, episodes = look.plan, look.episodes
    first = "no champion yet, so only absolute floors were checked"
    against = "against the champion, same seeds" if plan.champion else first
    failed = [check for check in checks if check.state == "failed"]
    undecided = [check for check in checks if check.state == "undecided"]
    if failed:
        return "REJECT", f"{against}; " + "; ".join(check.sentence() for check in failed), 0
    if not undecided:
        return "PROMOTE", f"{against}; " + "; ".join(check.sentence() for check in checks), 0
    sentences = f"{against}; " + "; ".join(check.sentence() for check in undecided)
    needed = [check.needed for check in undecided]
    known = [number for number in needed if number is not None]
    if len(known) < len(needed):
        return "HOLD", f"{sentences}; at the observed rates no number of episodes would decide", 0
    wanted = max([*known, episodes + 1])
    more = next((later for later in plan.looks if later >= wanted), wanted) - episodes
    where = "of this plan" if episodes + more <= plan.most else "under a new plan"
    return "HOLD", f"{sentences}; {more} more episodes, {where}, may decide", more


def _numbers(look: Look, arm: Arm) -> dict[str, float]:
    numbers = {"episodes": float(len(arm)), "modes": float(_modes(arm))}
    for metric in ("score", "success"):
        interval = look.interval(_values(metric, arm))
        numbers |= {metric: interval.estimate, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
    numbers["mode_entropy_bits"] = statistics.mode_entropy(record.mode for record in arm)
    return {name: rounded(number) for name, number in numbers.items()}


def _comparison(plan: Plan, candidate: Arm, champion: Arm) -> dict[str, float]:
    """Compare candidate and champion by methods that do not affect the verdict, at 95 %, as if at a single look."""
    mine, theirs = (_values("success", arm) for arm in (candidate, champion))
    pairs = Pairs.count(mine > 0, theirs > 0)
    exact = statistics.clopper_pearson(int(mine.sum()), len(mine))
    tango = statistics.paired_difference(mine, theirs)
    one, two = (_values("score", arm) for arm in (candidate, champion))
    bootstrap = statistics.bootstrap_difference(one, two)
    numbers = {
        "gained": float(pairs.gained),
        "lost": float(pairs.lost),
        "mcnemar_p": statistics.mcnemar(pairs),
        "success_difference": tango.estimate,
        "tango_low": tango.low,
        "tango_high": tango.high,
        "clopper_pearson_low": exact.low,
        "clopper_pearson_high": exact.high,
        "score_difference": bootstrap.estimate,
        "score_spread": float(np.std(one - two)),
        "bootstrap_low": bootstrap.low,
        "bootstrap_high": bootstrap.high,
        "unpaired_p": statistics.stratified(_tables(plan, candidate, champion)),
    }
    if len(plan.retrained) > 1:
        noise = statistics.Retraining(plan.retrained)
        numbers |= {"trainings": float(len(plan.retrained)), "retraining_deviation": noise.deviation}
        numbers |= {"retraining_p": noise.chance(abs(bootstrap.estimate))}
    return {name: rounded(number) for name, number in numbers.items()}


def _by_itself(comparison: Mapping[str, float] | None) -> str:
    """Return a clause on the spread of scores between trainings, where known; else an empty string."""
    if comparison is None or "trainings" not in comparison:
        return ""
    return (
        f"; the score moves by {comparison['retraining_deviation']:.3f} when the recipe is trained again "
        f"({comparison['trainings']:.0f} trainings), and by this difference or more with probability "
        f"{comparison['retraining_p']:.2g}"
    )


def _tables(plan: Plan, candidate: Arm, champion: Arm) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return successes and failures of both, by slice."""
    found = []
    for part in plan.slices:
        rows = [[record.success for record in arm if record.slice == part.name] for arm in (candidate, champion)]
        found.append(tuple((sum(row), len(row) - sum(row)) for row in rows))
    return [(one, two) for one, two in found]


def _slices(plan: Plan, arms: Arms) -> dict[str, dict[str, float]]:
    """Return by slice the candidate's mean and, with a champion, the difference and the p-value of "worse" (Holm).

    Intervals at 95 %, as if each slice were the only one.
    """
    found, worse, allowed = {}, list[float](), plan.margin if plan.question == "not_worse" else 0.0
    for part in plan.slices:
        mine = _values(plan.metric, [record for record in arms["candidate"] if record.slice == part.name])
        if not len(mine):
            continue
        numbers = {"episodes": float(len(mine)), "candidate": float(mine.mean())}
        if "champion" in arms:
            theirs = _values(plan.metric, [record for record in arms["champion"] if record.slice == part.name])
            interval = statistics.paired_difference(mine, theirs)
            worse.append(statistics.exchange(theirs - allowed, mine) if len(plan.slices) > 1 else 1.0)
            numbers |= {"champion": float(theirs.mean()), "difference": interval.estimate}
            numbers |= {"difference_low": interval.low, "difference_high": interval.high}
        found[part.name] = numbers
    for numbers, chance in zip(found.values(), holm(np.array(worse)), strict=False):
        numbers["worse_p"] = chance
    return {name: {key: rounded(value) for key, value in numbers.items()} for name, numbers in found.items()}


def rounded(number: float) -> float:
    """Return a number as it stands in a verdict."""
    return round(float(number), DIGITS) + 0.0  # no minus zero


def _values(metric: str, arm: Arm) -> Float[np.ndarray, " E"]:
    """Return one metric in the order of the records, which is the order of the seeds."""
    return np.array([float(getattr(record, metric)) for record in arm])


def _modes(arm: Arm) -> int:
    return len({record.mode for record in arm} - {""})
