"""Replay of every published Push-T demonstration, to show that our world equals the recorded one.

python -m bench.pusht_replay FOLDER    # the folder of pusht_cchi_v7_replay.zarr, or a zip of it
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from vqbet import environment
from vqbet.contract import Demonstrations
from vqbet.coordinates import goal_frame
from vqbet.tasks.pusht import TASK, importer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    source = parser.parse_args().source
    environment.prepare()
    from vqbet.tasks.pusht.replay import replay
    from vqbet.tasks.pusht.world import PushT

    demos = importer.load(source)
    start = time.perf_counter()
    found = replay(PushT(), demos, np.arange(len(demos.episode_ends)))
    spent_s = time.perf_counter() - start
    best, deviation = found["max_coverage"], found["deviation_px"]
    print(f"{len(best)} episodes, {len(demos.action)} steps in {spent_s:.1f} s")
    print(
        f"max coverage: mean {best.mean():.4f}, median {np.median(best):.4f}, from {best.min():.4f} to {best.max():.4f}"
    )
    print(f"final coverage: mean {found['final_coverage'].mean():.4f}; above 0.95 at some time: {(best > 0.95).sum()}")
    apart_px, turned = missed(demos)
    print(f"recorded ends: {apart_px:.1f} px and {turned:.1f} degrees from the goal on average")
    print(f"within 1 px of the recording: {(deviation <= 1).sum()} of {len(best)}")
    for episode in np.flatnonzero(deviation > 1):
        print(f"  episode {episode} deviates by up to {deviation[episode]:.2f} px")


def missed(demos: Demonstrations) -> tuple[float, float]:
    """Return the mean distance (px) and rotation (degrees) of the T from the goal at the demonstrations' ends."""
    motion = goal_frame.reached(demos, TASK.goal, TASK.goal_frame)
    turned = np.degrees(np.abs(np.arctan2(motion.sine, motion.cosine)))
    return float(np.linalg.norm(motion.start - motion.end, axis=1).mean()), float(turned.mean())


if __name__ == "__main__":
    main()
