"""Guard of a robot: time of one check, and generated actions compared with an oracle in plain Python.

    OMP_NUM_THREADS=1 python -m bench.guard [--actions 1000000] [--seed 0]

Wanted: under 20 us per action of 26 dimensions, and of the actions 0 unsafe passed and 0 safe refused. The time is the
median of checks that pass, and of checks that refuse, with the sentence why.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from tests.support import guarded
from vqbet.serving.guard import Guard, Limits

DIMENSIONS, OBSERVED, CHECKS = 26, 60, 20_000
WANTED_US = 20.0
FAULTS = ("unsafe passed", "safe refused", "another reason", "another action")


def times_us(*, refused: bool) -> tuple[float, float]:
    """Return median and 99th percentile of a check, in microseconds."""
    guard = Guard(Limits.of(guarded.handshake(guarded.spec(DIMENSIONS, OBSERVED))), workspace=lambda *_: True)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (CHECKS, DIMENSIONS)).astype(np.float32) + np.float32(5 * refused)
    seen, taken = rng.uniform(-1, 1, (CHECKS, OBSERVED)).astype(np.float32), []
    for place, (action, observation) in enumerate(zip(actions, seen, strict=True)):
        if refused:
            guard.start()
        began = time.perf_counter_ns()
        decision = guard.check(action, observation, age_s=0.0, observed_s=float(place))
        taken.append(time.perf_counter_ns() - began)
        assert (decision.verdict == "pass") is not refused
    return float(np.median(taken)) / 1000, float(np.percentile(taken, 99)) / 1000


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--actions", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    passing, refusing = times_us(refused=False), times_us(refused=True)
    for name, (median, p99) in (("passed", passing), ("refused", refusing)):
        print(f"{name}: {median:.1f} us per action of {DIMENSIONS} dimensions, {p99:.1f} us at the 99th percentile")
    told = guarded.campaign(chosen.actions, chosen.seed)
    for name, count in sorted(told.items(), key=lambda each: -each[1]):
        print(f"{count:9,} {name}")
    print(f"{told.total():9,} actions; {', '.join(f'{told[name]} {name}' for name in FAULTS)}")
    return int(passing[0] > WANTED_US or any(told[name] for name in FAULTS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
