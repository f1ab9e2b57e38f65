"""Control steps per second of Franka Kitchen, compared with gymnasium-robotics' own environment in the same run.

    python -m bench.kitchen

All play the same actions, a gentle random walk that pushes something, and observe with the world's noise. The
candidates alternate for several rounds; the best round counts. Nearly all of the time is spent in MuJoCo, so only more
cores can make it faster.
"""

from __future__ import annotations

import os
import time
from contextlib import redirect_stderr
from io import StringIO

import numpy as np

from bench import rates
from vqbet import environment

STEPS, ROUNDS = 40, 3


def actions(episodes: int) -> np.ndarray:
    """Return actions (STEPS, episodes, 9) in -1..1, equal in all episodes, since contacts make a step slower."""
    walk = np.random.default_rng(0).normal(0, 0.3, (STEPS, 9)).cumsum(axis=0)
    return walk.clip(-1, 1)[:, None].repeat(episodes, axis=1)


def pictures() -> float:
    """Return rendered pictures per second."""
    from vqbet.tasks.kitchen.world import Kitchen

    env = Kitchen()
    env.reset(np.arange(1))
    env.render(0)
    start = time.perf_counter()
    for _ in range(20):
        env.render(0)
    return 20 / (time.perf_counter() - start)


def main() -> None:
    environment.prepare()
    with redirect_stderr(StringIO()):  # hides a notice about other worlds
        from gymnasium_robotics.envs.franka_kitchen.kitchen_env import KitchenEnv

    from vqbet.tasks.kitchen.world import Kitchen

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    candidates = {"gymnasium-robotics": rates.gymnasium(KitchenEnv(), actions(1)[:, 0])}
    for episodes, threads in dict.fromkeys([(1, 1), (64, 1), (64, cores)]):
        moves = actions(episodes)
        candidates[f"vqbet, {episodes} episodes, {threads} threads"] = rates.ours(Kitchen(threads=threads), moves)
    rates.compare(candidates, rounds=ROUNDS)
    print(f"pictures of 320 x 320: {pictures():.1f} per second")


if __name__ == "__main__":
    main()
