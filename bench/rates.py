"""What the benches of the worlds have in common: play actions, count control steps per second, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def gymnasium(env: Any, moves: np.ndarray) -> Callable[[], float]:
    """How fast a gymnasium environment plays `moves` (S, A), each time from the same seed; control steps per second."""

    def play() -> float:
        env.reset(seed=0)
        start = time.perf_counter()
        for move in moves:
            env.step(move)
        return len(moves) / (time.perf_counter() - start)

    return play


def ours(env: Any, moves: np.ndarray) -> Callable[[], float]:
    """How fast a `contract.Env` plays `moves` (S, E, A), all episodes together; control steps per second."""
    rows = np.arange(moves.shape[1])

    def play() -> float:
        env.reset(rows)
        start = time.perf_counter()
        for move in moves:
            env.step(move, rows)
        return len(moves) * len(rows) / (time.perf_counter() - start)

    return play


def compare(candidates: Mapping[str, Callable[[], float]], *, rounds: int) -> None:
    """Print each one's best of several rounds, taken in turn, and how many times as fast as the first it is."""
    best = dict.fromkeys(candidates, 0.0)
    for _ in range(rounds):
        for name, play in candidates.items():
            best[name] = max(best[name], play())
    first = next(iter(best.values()))
    for name, rate in best.items():
        print(f"{name:32} {rate:9,.0f} steps/s  {rate / first:5.2f} x")
