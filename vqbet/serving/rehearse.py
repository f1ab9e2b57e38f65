"""A clean process in which a bundle must act on recorded observations: `python -m vqbet.serving.rehearse`.

    rehearse <bundle folder> <digest> <recorded.npz> <acted.npz>

recorded: observation (N, D) float32, ends (E,) int64, seeds (E,) int64, goal (E, C) float32 where C may be 0.
acted: action (N, A) float32, seconds (N,) of each call, foreign: names of modules that acting has no use for.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from vqbet.contract import VqbetError
from vqbet.environment.processes import one_thread
from vqbet.serving.session import Session

FOREIGN = ("mlflow", "prefect", "dvc", "zarr", "great_expectations", "boto3", "accelerate")
WARM = 3  # calls before the clock counts: the first ones load kernels


def rehearse(session: Session, recorded: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Actions and seconds of every call, on one thread."""
    actions, seconds = [], []
    starts = np.concatenate([[0], recorded["ends"][:-1]])
    with one_thread():
        session.start(0, recorded["goal"][0] if session.goal else None)
        for _ in range(WARM):
            session.act(recorded["observation"][0])
        for first, end, seed, goal in zip(starts, recorded["ends"], recorded["seeds"], recorded["goal"], strict=True):
            session.start(int(seed), goal if session.goal else None)
            for observation in recorded["observation"][first:end]:
                began = time.perf_counter()
                actions.append(session.act(observation))
                seconds.append(time.perf_counter() - began)
    return np.array(actions), np.array(seconds)


def main(folder: str, digest: str, recorded: str, acted: str) -> None:
    with np.load(recorded, allow_pickle=False) as file:
        episodes = {name: file[name] for name in ("observation", "ends", "seeds", "goal")}
    actions, seconds = rehearse(Session(Path(folder), digest), episodes)
    foreign = sorted(name for name in FOREIGN if name in sys.modules)
    np.savez(acted, action=actions, seconds=seconds, foreign=np.array(foreign, dtype=np.str_))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except VqbetError as error:
        sys.exit(f"{type(error).__name__}: {error}")
