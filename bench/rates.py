"""Helpers of the world benchmarks: play actions, measure control steps per second, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def gymnasium(env: Any, moves: np.ndarray) -> Callable[[], float]:
    """Return a function that plays `moves` (S, A) in a gymnasium environment, from the same seed each time.

    The function returns control steps per second.
    """

    def play() -> float:
        env.reset(seed=0)
        start = time.perf_counter()
        for move in moves:
            env.step(move)
        return len(moves) / (time.perf_counter() - start)

    return play


def ours(env: Any, moves: np.ndarray) -> Callable[[], float]:
    """Return a function that plays `moves` (S, E, A) in a `contract.Env`, all episodes together.

    The function returns control steps per second.
    """
    rows = np.arange(moves.shape[1])

    def play() -> float:
        env.reset(rows)
        start = time.perf_counter()
        for move in moves:
            env.step(move, rows)
        return len(moves) * len(rows) / (time.perf_counter() - start)

    return play


def compare(candidates: Mapping[str, Callable[[], float]], *, rounds: int) -> None:
    """Print each candidate's best of several alternating rounds, and its ratio to the first candidate."""
    best = dict.fromkeys(candidates, 0.0)
    for _ in range(rounds):
        for name, play in candidates.items():
            best[name] = max(best[name], play())
    first = next(iter(best.values()))
    for name, rate in best.items():
        print(f"{name:32} {rate:9,.0f} steps/s  {rate / first:5.2f} x")
