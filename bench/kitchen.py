"""Control steps per second of Franka Kitchen, against gymnasium-robotics' own environment in the same run.

    python bench/kitchen.py

All play the same actions, a gentle random walk that pushes something, and observe with the world's noise. The best of
several rounds counts, rounds of the candidates taken in turn. Nearly all of the time is MuJoCo's own: what there is to
gain is the cores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO

import numpy as np

from vqbet import environment

STEPS, ROUNDS = 40, 3


def actions(episodes: int) -> np.ndarray:
    """(STEPS, episodes, 9) in -1..1, the same for every episode, since a step costs more where more is touched."""
    walk = np.random.default_rng(0).normal(0, 0.3, (STEPS, 9)).cumsum(axis=0)
    return walk.clip(-1, 1)[:, None].repeat(episodes, axis=1)


def gymnasium_robotics() -> Callable[[], float]:
    with redirect_stderr(StringIO()):  # its notice about other worlds
        from gymnasium_robotics.envs.franka_kitchen.kitchen_env import KitchenEnv

    env, moves = KitchenEnv(), actions(1)[:, 0]

    def play() -> float:
        env.reset(seed=0)
        start = time.perf_counter()
        for move in moves:
            env.step(move)
        return STEPS / (time.perf_counter() - start)

    return play


def ours(episodes: int, threads: int) -> Callable[[], float]:
    from vqbet.sims.kitchen import Kitchen

    env, moves, rows = Kitchen(threads=threads), actions(episodes), np.arange(episodes)

    def play() -> float:
        env.reset(rows)
        start = time.perf_counter()
        for move in moves:
            env.step(move, rows)
        return STEPS * episodes / (time.perf_counter() - start)

    return play


def pictures() -> float:
    """Pictures per second."""
    from vqbet.sims.kitchen import Kitchen

    env = Kitchen()
    env.reset(np.arange(1))
    env.render(0)
    start = time.perf_counter()
    for _ in range(20):
        env.render(0)
    return 20 / (time.perf_counter() - start)


def main() -> None:
    environment.prepare()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    candidates = {"gymnasium-robotics": gymnasium_robotics(), "vqbet, 1 episode": ours(1, 1)}
    candidates |= {f"vqbet, 64 episodes, {threads} threads": ours(64, threads) for threads in sorted({1, cores})}
    best = dict.fromkeys(candidates, 0.0)
    for _ in range(ROUNDS):
        for name, play in candidates.items():
            best[name] = max(best[name], play())
    slowest = best["gymnasium-robotics"]
    for name, rate in best.items():
        print(f"{name:32} {rate:9,.0f} steps/s  {rate / slowest:5.2f} x")
    print(f"pictures of 320 x 320: {pictures():.1f} per second")


if __name__ == "__main__":
    main()
