"""Cost of an episode on a Dask cluster: overhead of 1 to 64 workers whose tasks sleep, and real episodes on 2.

    OMP_NUM_THREADS=1 python -m bench.cluster [--workers 1 8 64]

Each worker gets the same number of shards, each of which sleeps; overhead is what the whole took beyond the sleep, over
the number of shards one worker had. Workers are threads of one process here, so it is the scheduler that is measured.
The real episodes are BlockPush's, played by this machine's processes and by a cluster of as many.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from vqbet.demos import store
from vqbet.environment import processes
from vqbet.evaluation import cluster
from vqbet.evaluation.pool import SHARD, Assignment, RolloutPool
from vqbet.evaluation.rollout import UNPLANNED, Label
from vqbet.stages.players import StorePlayers
from vqbet.stages.progress import Watch
from vqbet.tasks.blockpush.oracle import demonstrations

SLEEP_S, SHARDS = 1.0, 10  # of a shard, and for each worker; 100 real episodes take longer
EPISODES = 800


def sleeping(workers: int) -> float:
    """Return the overhead of a shard in milliseconds of one worker's time."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=workers, threads_per_worker=1, processes=False, dashboard_address=None) as place:
        there = cluster.Cluster(place.scheduler_address)
        list(there.map(time.sleep, [(0.0,)] * workers))
        began = time.perf_counter()
        list(there.map(time.sleep, [(SLEEP_S,)] * (workers * SHARDS)))
        took = time.perf_counter() - began
        there.end()
    return 1000 * (took / SHARDS - SLEEP_S)


def playing(demos: Path, where: str) -> float:
    """Return the seconds of EPISODES episodes, processes and policies being there."""
    os.environ[cluster.VARIABLE] = where
    job = Assignment(Label("blockpush", "nearest", "", UNPLANNED, ""), range(EPISODES))
    with RolloutPool(StorePlayers(demos)) as place:
        place.play("first", [job], Watch().bar)
        began = time.perf_counter()
        place.play("timed", [job], Watch().bar)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    chosen = parser.parse_args()
    for workers in chosen.workers:
        overhead = sleeping(workers)
        print(f"{workers:3d} workers: {overhead:7.1f} ms a shard, {overhead / SHARD:.2f} ms an episode")
    os.environ.setdefault(processes.WORKERS, "2")
    with tempfile.TemporaryDirectory() as folder:
        demos = Path(folder) / "blockpush.zarr"
        store.write(demos, demonstrations(100, 0))
        for where in ("", "local", "", "local"):
            print(f"{EPISODES} episodes on {where or 'processes'}: {playing(demos, where):.2f} s")


if __name__ == "__main__":
    main()
