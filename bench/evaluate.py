"""Speed of playing candidate and champion on all cores, compared with the simulator alone on the same actions.

    python -m bench.evaluate <task> [--episodes 500] [--workers 1 2] [--rounds 3] [--shard 100]

Needs data/<task>.zarr and artifacts/<task>/policy, which plays both arms. The simulator alone replays the policy's
actions in the same shards, in the same number of processes. Prints medians over rounds in which the two alternate.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from vqbet import environment, policies
from vqbet.contract import Env
from vqbet.demos import store
from vqbet.environment import processes, threads
from vqbet.evaluation import pool as rollouts
from vqbet.evaluation import rollout
from vqbet.evaluation.pool import Assignment, RolloutPool
from vqbet.evaluation.rollout import UNPLANNED, Label
from vqbet.stages import worlds
from vqbet.stages.paths import Paths
from vqbet.stages.players import StorePlayers
from vqbet.stages.progress import Watch

FIRST_SEED = 7_000_000


class Recorded:
    """World that records the actions taken in it."""

    def __init__(self, env: Env) -> None:
        self.env, self.done = env, list[tuple[np.ndarray, np.ndarray]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def step(self, action: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.done.append((action.copy(), rows.copy()))
        return self.env.step(action, rows)


def alone(demos: Path, job: Assignment) -> tuple[int, float]:
    """Return the number of steps, and the seconds that the simulator alone needs for them."""
    known = store.read(demos)
    world = Recorded(worlds.make(job.label.world, known))
    assert job.bundle is not None
    with threads.of(1):
        rollout.play(world, policies.load(job.bundle)[0], job.seeds, job.label)
    env = worlds.make(job.label.world, known)
    began = time.perf_counter()
    env.reset(np.array(job.seeds))
    for action, rows in world.done:
        env.step(action, rows)
    return sum(len(rows) for _, rows in world.done), time.perf_counter() - began


def measured(paths: Paths, jobs: list[Assignment], workers: int, rounds: int) -> np.ndarray:
    """Return (rounds, 2) steps per second, of an evaluation in running processes and of the simulator alone."""
    os.environ[processes.WORKERS] = str(workers)
    shards = [shard for job in jobs for shard in job.shards()]
    found = []
    with (
        RolloutPool(StorePlayers(paths.store)) as place,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
    ):
        place.play(
            "warm", [Assignment(job.label, job.seeds[: rollouts.SHARD], job.bundle) for job in jobs], Watch().bar
        )
        for _ in range(rounds):
            played = place.play("timed", jobs, Watch().bar)
            steps, seconds = np.sum(list(pool.map(alone, [paths.store] * len(shards), shards)), axis=0)
            evaluated = sum(play.timing.steps for play in played) / played[0].timing.seconds
            found.append((evaluated, workers * steps / seconds))
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shard", type=int, default=rollouts.SHARD)
    options = parser.parse_args()
    os.environ |= rollouts.ONE_THREAD
    rollouts.SHARD, rollouts.START_S = options.shard, 0.0  # processes run before the clock starts
    paths = Paths(environment.prepare(), options.task)
    policy, packed = policies.load(paths.policy)
    world = worlds.name(options.task, asked=bool(policy.goal))
    seeds = range(FIRST_SEED, FIRST_SEED + options.episodes)
    jobs = [
        Assignment(Label(world, name, packed.digest, UNPLANNED, ""), seeds, paths.policy)
        for name in ("candidate", "champion")
    ]
    print(f"{world}: {options.episodes} episodes of two policies in shards of {rollouts.SHARD}; steps per second")
    for workers in options.workers:
        rates = measured(paths, jobs, workers, options.rounds)
        evaluated, simulated = np.median(rates, axis=0)
        shares = np.sort(rates[:, 0] / rates[:, 1])
        print(f"{workers} processes: {evaluated:8.0f}, simulator alone {simulated:8.0f}", end="; ")
        print(f"share {np.median(shares):.2f} ({shares[0]:.2f} to {shares[-1]:.2f})")


if __name__ == "__main__":
    main()
