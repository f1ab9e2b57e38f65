"""Control steps per second of BlockPush on one core, and the time to make a set of demonstrations.

    OMP_NUM_THREADS=1 python -m bench.blockpush

Times are processor times, so that other work on the machine does not count.
"""

from __future__ import annotations

import time

import numpy as np

from vqbet.tasks.blockpush.oracle import demonstrations, moves
from vqbet.tasks.blockpush.world import BlockPush

STEPS = 30


def steps_per_second(episodes: int, repeats: int = 5) -> float:
    """Return control steps per second while every effector pushes a block, without the oracle; best of `repeats`."""
    world, rows, best = BlockPush(), np.arange(episodes), float("inf")
    mode = rows % 4
    for _ in range(repeats):
        observation, spent = world.reset(rows), 0.0
        for _ in range(STEPS):
            action = moves(observation, mode)
            start = time.process_time()
            observation, _ = world.step(action, rows)
            spent += time.process_time() - start
        best = min(best, spent)
    return episodes * STEPS / best


def main() -> None:
    for episodes in (1, 8, 64, 200):
        print(f"{episodes:4d} episodes at once: {steps_per_second(episodes):8.0f} control steps/s")
    start = time.process_time()
    demos = demonstrations(1000, seed=0)
    print(f"1000 demonstrations, {len(demos.action)} steps: {time.process_time() - start:.1f} s")


if __name__ == "__main__":
    main()
