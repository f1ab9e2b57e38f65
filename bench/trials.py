"""Error rates of whole sessions of robot trials by simulation: looks, stopping and invalid trials included.

    python -m bench.trials [--sessions 2000] [--seed 0]      prints a Markdown table; 1 where a rate is too high

All sessions of a row are decided at once by the rules of the gate; tests compare this with real sessions on their logs.
A trial may be declared invalid, more often for one outcome than for the other; its repeat is drawn anew, given the
other arm's outcome on the same initial condition.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vqbet.evaluation.plan import Plan, Slice
from vqbet.evaluation.trials.session_power import PROMOTED, REJECTED, decided, session_power

LOOKS = {"fixed": (30,), "group_sequential": (10, 20, 30), "anytime": (10, 20, 30)}
MOST_INVALID = 0.2
MOST_REPEATS = 40
POINTS = 0.02  # of the stated power
FINER = 5  # times as many sessions for a power, as 2,000 leave a standard error of one point
NO_VERDICT = -2


@dataclass(frozen=True, slots=True)
class Truth:
    """Shares of pairs that both arms solve, only the candidate, only the champion.

    invalid: probability that a failed and that a successful trial is declared invalid.
    """

    both: float
    gained: float
    lost: float
    invalid: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Sessions:
    """Many sessions. outcomes: PROMOTED and so on. pairs: played. invalid: trials declared invalid by then."""

    outcomes: np.ndarray
    pairs: np.ndarray
    invalid: np.ndarray

    @property
    def promoted(self) -> float:
        return float((self.outcomes == PROMOTED).mean())


def planned(question: str, stopping: str, **fields: object) -> Plan:
    """Return the gate's plan of a session with the defaults of `trials` in params.yaml."""
    plan = Plan(
        task="trials",
        world="robot:bench",
        spec="bench",
        candidate="c" * 64,
        champion="d" * 64,
        machine="bench",
        first_seed=0,
        looks=LOOKS[stopping],
        reserved={},
        slices=(Slice("all", 1.0),),
        metric="success",
        question=question,  # type: ignore[arg-type]
        stopping=stopping,  # type: ignore[arg-type]
        margin=0.2,
        alpha=0.05,
        power=0.8,
        floor=0.5,
        min_modes=0,
        baselines=(),
    )
    return replace(plan, **fields)  # type: ignore[arg-type]


def simulated(plan: Plan, truth: Truth, *, sessions: int, seed: int) -> Sessions:
    """Return many sessions of a plan under one truth, each up to the look that decides it."""
    mine, theirs, invalid = played(truth, (sessions, plan.most), seed=seed)
    outcomes, pairs = decided(plan, mine, theirs)
    seen = np.arange(plan.most) < pairs[:, None]
    bad = np.where(seen, invalid, 0).sum(axis=1)
    void = bad > MOST_INVALID * (bad + 2 * pairs)
    return Sessions(np.where(void, NO_VERDICT, outcomes), pairs, bad)


def played(truth: Truth, shape: tuple[int, int], *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return successes of candidate and champion by session and pair, and how many trials of the pair were invalid."""
    random = np.random.default_rng(seed)
    neither = 1 - truth.both - truth.gained - truth.lost
    kind = random.choice(4, shape, p=[truth.both, truth.gained, truth.lost, max(neither, 0.0)])
    mine, theirs = kind <= 1, (kind == 0) | (kind == 2)
    count = np.zeros(shape, np.int64)
    for arm, other, alone in ((mine, theirs, truth.gained), (theirs, mine, truth.lost)):
        shared = truth.both + (truth.lost if arm is mine else truth.gained)
        with_other = truth.both / shared if shared else 0.0
        without = alone / (alone + neither) if alone + neither else 0.0
        waiting = np.ones(shape, bool)
        for _ in range(MOST_REPEATS):
            waiting &= random.uniform(size=shape) < np.where(arm, truth.invalid[1], truth.invalid[0])
            if not waiting.any():
                break
            count += waiting
            arm[waiting] = (random.uniform(size=shape) < np.where(other, with_other, without))[waiting]
    return mine, theirs, count


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table. bound: most that may be promoted; None: a power, compared with the stated one.

    promised: whether the bound holds by construction; where outcomes decide what is invalid it does not.
    """

    what: str
    plan: Plan
    truth: Truth
    bound: float | None
    promised: bool = True

    @property
    def stated(self) -> float:
        """The power that a plan states."""
        truth = self.truth
        return session_power(self.plan, both=truth.both, gained=truth.gained, lost=truth.lost)


INVALID = {"none": (0.0, 0.0), "1 in 20": (0.05, 0.05), "1 in 10": (0.1, 0.1), "1 in 5 failures": (0.2, 0.0)}


def rows() -> list[Row]:
    """Return all rows: equal policies, policies worse by the margin, and equal ones that shall be shown to be so."""
    found = []
    for stopping in LOOKS:
        for said, invalid in INVALID.items():
            promised = invalid[0] == invalid[1]
            for differing in (0.2, 0.4):
                what = f"equal, {differing:.0%} of pairs differ, invalid {said}"
                truth = Truth(0.8 - differing / 2, differing / 2, differing / 2, invalid)
                found.append(Row(what, planned("better", stopping), truth, 0.05, promised))
            worse = Truth(0.6, 0.05, 0.25, invalid)
            what = f"worse by the margin, invalid {said}"
            found.append(Row(what, planned("not_worse", stopping), worse, 0.05, promised))
    for stopping in LOOKS:
        for said in ("none", "1 in 20"):
            for differing in (0.1, 0.2):
                what = f"power, {differing:.0%} of pairs differ, invalid {said}"
                truth = Truth(0.9 - differing / 2, differing / 2, differing / 2, INVALID[said])
                found.append(Row(what, planned("not_worse", stopping), truth, None))
    return found


def measured(row: Row, *, sessions: int, seed: int) -> tuple[Sessions, float, bool]:
    """Return the sessions of a row, what their share of promotions is compared with, and whether it holds."""
    if row.bound is None:
        found = simulated(row.plan, row.truth, sessions=FINER * sessions, seed=seed)
        return found, row.stated, abs(found.promoted - row.stated) <= POINTS
    found = simulated(row.plan, row.truth, sessions=sessions, seed=seed)
    return found, row.bound, found.promoted <= row.bound or not row.promised


def table(chosen: Sequence[Row], *, sessions: int, seed: int) -> tuple[str, bool]:
    """Return the Markdown table of rows, and whether all hold."""
    lines = [
        "| stopping | question | truth | promoted | limit | rejected | no verdict | pairs | s | |",
        "|---" * 10 + "|",
    ]
    good = True
    for row in chosen:
        began = time.perf_counter()
        found, limit, holds = measured(row, sessions=sessions, seed=seed)
        good &= holds
        shares = [float((found.outcomes == outcome).mean()) for outcome in (REJECTED, NO_VERDICT)]
        lines.append(
            f"| {row.plan.stopping} | {row.plan.question} | {row.what} | {found.promoted:.3f} | "
            f"{'about' if row.bound is None else 'at most'} {limit:.3f} | {shares[0]:.3f} | {shares[1]:.3f} | "
            f"{found.pairs.mean():.1f} | {time.perf_counter() - began:.1f} | {_mark(row, holds)} |"
        )
    return "\n".join(lines), good


def _mark(row: Row, holds: bool) -> str:
    return ("yes" if row.promised else "not promised") if holds else "NO"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    said, good = table(rows(), sessions=chosen.sessions, seed=chosen.seed)
    print(said)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
