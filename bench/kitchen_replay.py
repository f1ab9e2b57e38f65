"""Replay of every published Franka Kitchen demonstration, to show that our world equals the recorded one.

python -m bench.kitchen_replay FOLDER    # the folder of kitchen_complete.zarr, or a zip of it
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from vqbet import environment
from vqbet.tasks.kitchen import importer

WAYS: Mapping[Literal["targets", "actions", "seed"], str] = {
    "targets": "from the recorded first states, actions counted from the recorded positions of the arm",
    "actions": "from the recorded first states, actions counted from where the arm is",
    "seed": "from the world's own start with the recording's seed, actions counted from where the arm is",
}


def told(name: str, found: Mapping[str, np.ndarray]) -> None:
    tasks, arm, exact = found["tasks"], found["arm_rad"], found["exact_steps"]
    print(f"{name}:")
    print(f"  tasks done: {tasks.mean():.3f} of 4; all four in {(tasks == 4).sum()} of {len(tasks)}")
    print(f"  arm: off by at most {np.median(arm):.4f} rad in the median episode, {arm.max():.4f} in the worst")
    print(f"  kettle: by {np.median(found['kettle_m']):.4f} m and {found['kettle_m'].max():.4f} m")
    print(f"  the recorded observations of the arm, to float32: for the first {exact.min()} to {exact.max()} steps")
    for mode, count in Counter(found["mode"].tolist()).most_common():
        print(f"  {count:3} x {mode or 'nothing'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    source = parser.parse_args().source
    environment.prepare()
    import mujoco

    from vqbet.tasks.kitchen.replay import replay
    from vqbet.tasks.kitchen.world import Kitchen

    demos = importer.load(source)
    episodes = np.arange(len(demos.episode_ends))
    print(f"mujoco {mujoco.__version__}: {len(episodes)} episodes, {len(demos.action)} steps")
    for way, sentence in WAYS.items():
        start = time.perf_counter()
        found = replay(Kitchen(), demos, episodes, way=way)
        told(f"{sentence} ({time.perf_counter() - start:.1f} s)", found)


if __name__ == "__main__":
    main()
