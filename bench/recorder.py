"""The recorder killed at 100 random moments, and what a step costs the control loop.

    OMP_NUM_THREADS=1 python -m bench.recorder [kills]

Every recording that was finished must be there, whole, and make a store with the others. A step of 9 observed and 26
commanded channels is recorded at 200 Hz; the time is that which the control loop spends in `Recorder.step`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.support.killed_recorder import campaign
from tests.support.recording import handshake
from tests.support.synthetic import synthetic_spec
from vqbet.serving.recorder import Recorder

STEPS, PERIOD_S = 2000, 0.005


def step_s(folder: Path) -> np.ndarray:
    """Return the duration of every step of an episode."""
    recorder, random, took = Recorder(folder, handshake(synthetic_spec(D=9, A=26))), np.random.default_rng(0), []
    recorder.start(seed=0)
    for step in range(STEPS):
        state, action = random.random(9), random.random(26)
        began = time.perf_counter()
        recorder.step(
            observation={"state": state}, asked=action, sent=action, time_s=step * PERIOD_S, signals={"entropy": 1.0}
        )
        took.append(time.perf_counter() - began)
        time.sleep(max(0.0, PERIOD_S - took[-1]))
    recorder.finish(success=True)
    return np.array(took)


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as folder:
        took = 1e3 * step_s(Path(folder) / "one")
        print(f"step: median {np.median(took):.3f} ms, 99 of 100 below {np.percentile(took, 99):.3f} ms")
        for name, count in campaign(Path(folder) / "recordings", kills).items():
            print(f"{name}: {count}")


if __name__ == "__main__":
    main()
