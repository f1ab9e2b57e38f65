"""Control steps per second of Push-T, against gym-pusht's own environment in the same run.

    python bench/pusht.py

Both play the same actions: half of the time towards the block, so that most of them push. The best of several rounds
counts, rounds of the candidates taken in turn. One process, one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from vqbet import environment

STEPS, ROUNDS, BATCHES = 150, 5, (1, 8, 200)


def actions(episodes: int) -> np.ndarray:
    """(STEPS, episodes, 2) px, half of them near the goal, where blocks are, half anywhere."""
    generator = np.random.default_rng(0)
    anywhere = generator.uniform(50, 450, (STEPS, episodes, 2))
    towards = generator.normal(256, 60, (STEPS, episodes, 2)).clip(0, 512)
    return np.where(generator.random((STEPS, episodes, 1)) < 0.5, towards, anywhere)


def reference() -> Callable[[], float]:
    from gym_pusht.envs.pusht import PushTEnv

    env, moves = PushTEnv(obs_type="state"), actions(1)[:, 0]

    def play() -> float:
        env.reset(seed=0)
        start = time.perf_counter()
        for move in moves:
            env.step(move)
        return STEPS / (time.perf_counter() - start)

    return play


def ours(episodes: int) -> Callable[[], float]:
    from vqbet.sims.pusht import PushT

    env, moves, rows = PushT(), actions(episodes), np.arange(episodes)

    def play() -> float:
        env.reset(rows)
        start = time.perf_counter()
        for move in moves:
            env.step(move, rows)
        return STEPS * episodes / (time.perf_counter() - start)

    return play


def main() -> None:
    environment.prepare()
    candidates = {"gym-pusht, state": reference()} | {f"vqbet, {count} episodes": ours(count) for count in BATCHES}
    best = dict.fromkeys(candidates, 0.0)
    for _ in range(ROUNDS):
        for name, play in candidates.items():
            best[name] = max(best[name], play())
    slowest = best["gym-pusht, state"]
    for name, rate in best.items():
        print(f"{name:22} {rate:9,.0f} steps/s  {rate / slowest:5.1f} x")


if __name__ == "__main__":
    main()
